"""Signed bytes: a strict reading of DSSE envelopes over securesystemslib, and canonical JSON for their payloads.

One statement has exactly one spelling here, so that nothing in an envelope can change without being refused.
It knows nothing of what the payloads mean, and never sees where a private key is kept.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, Signature, SSlibKey

from policies.engine import PolicyError

MAX_SIGNATURES = 16


class MalformedError(PolicyError):
    """Not an envelope or statement of the expected shape."""


@dataclass(frozen=True, slots=True)
class Signed:
    """An envelope whose shape was checked; its signatures were not. `payload` is what they cover."""

    payload: bytes
    payload_type: str
    signatures: Mapping[str, str]  # key id to signature, in hex

    def is_signed_by(self, key_id: str, public_key: str) -> bool:
        """Whether that key's signature is among them and covers exactly these bytes and this type."""
        key = _key(public_key)
        if key.keyid != key_id or key_id not in self.signatures:
            return False
        try:
            self._envelope().verify([key], 1)
        except VerificationError:
            return False
        return True

    def also_signed_by(self, signer: CryptoSigner) -> dict[str, Any]:
        """The same envelope with one more signature."""
        envelope = self._envelope()
        envelope.sign(signer)
        return dict(envelope.to_dict())

    def _envelope(self) -> Envelope:
        return Envelope(self.payload, self.payload_type, {k: Signature(k, sig) for k, sig in self.signatures.items()})


def seal(payload: bytes, payload_type: str, signers: Sequence[CryptoSigner]) -> dict[str, Any]:
    """The payload, its type and the signers' signatures as a JSON-ready dict."""
    envelope = Envelope(payload, payload_type, {})
    for signer in signers:
        envelope.sign(signer)
    return dict(envelope.to_dict())


def read(envelope: Mapping[str, Any]) -> Signed:
    _exact_fields(envelope, {"payload", "payloadType", "signatures"}, "envelope")
    payload_type, signatures = envelope["payloadType"], envelope["signatures"]
    if not isinstance(payload_type, str):
        raise MalformedError(f"payloadType must be text, got {type(payload_type).__name__}")
    if not isinstance(signatures, list | tuple) or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise MalformedError(f"an envelope carries a list of 1 to {MAX_SIGNATURES} signatures")
    found = dict(_signature(signature) for signature in signatures)
    if len(found) != len(signatures):
        raise MalformedError("two signatures name the same key")
    return Signed(payload=_unbase64(envelope["payload"], "payload"), payload_type=payload_type, signatures=found)


def key_id_of(public_key: str) -> str:
    """The key id of an Ed25519 public key given as hex."""
    return str(_key(public_key).keyid)


def canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fields_of(payload: bytes, names: set[str]) -> dict[str, Any]:
    """The payload's fields, if it is the canonical JSON of an object with exactly these names."""
    try:
        fields = json.loads(payload)
        is_canonical = isinstance(fields, dict) and canonical(fields) == payload
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the signed payload is not JSON: {error}") from error
    if not is_canonical:
        raise MalformedError("the signed payload is not canonical JSON; make it with `honed`, not by hand")
    _exact_fields(fields, names, "signed payload")
    return dict(fields)


def _exact_fields(found: object, names: set[str], what: str) -> None:
    if not isinstance(found, Mapping):
        raise MalformedError(f"the {what} must be an object, got {type(found).__name__}")
    missing, unknown = sorted(names - found.keys()), sorted(map(str, found.keys() - names))
    if missing or unknown:
        raise MalformedError(f"the {what} has missing fields {missing} and unknown fields {unknown}")


def _signature(signature: Any) -> tuple[str, str]:
    _exact_fields(signature, {"keyid", "sig"}, "signature")
    key_id = signature["keyid"]
    if not isinstance(key_id, str):
        raise MalformedError(f"a signature's keyid must be text, got {type(key_id).__name__}")
    return key_id, _unbase64(signature["sig"], "signature").hex()


def _unbase64(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise MalformedError(f"the {what} must be base64 text, got {type(text).__name__}")
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise MalformedError(f"the {what} is not base64: {error}") from error
    # base64 can leave bits of its last character unused; another spelling of the same bytes is an edit too.
    if base64.b64encode(data).decode() != text:
        raise MalformedError(f"the {what} is not in standard base64")
    return data


def _key(public_key: str) -> Key:
    try:
        raw = bytes.fromhex(public_key)
        key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw))
    except ValueError as error:
        raise PolicyError(f"not an Ed25519 public key in hex: {public_key!r} ({error})") from error
    if raw.hex() != public_key:
        raise PolicyError(f"the public key {public_key!r} must be lower-case hex without spaces")
    return key
