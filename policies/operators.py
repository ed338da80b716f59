"""How an operator becomes known: by a statement signed with their own key and, after the first, by a known one too.

Keeping the operators, and the private keys, is left to others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from securesystemslib.signer import CryptoSigner

from policies.engine import PolicyError
from policies.envelope import Signed, canonical, fields_of, key_id_of, read, seal
from policies.statement import LATEST_TIME
from store.records import Operator

PAYLOAD_TYPE_OPERATOR = "application/vnd.honed.operator+json"
MAX_NAME_LENGTH = 64
_FIELDS = {"name", "public_key", "key_id", "created_at"}


def introduce(name: str, public_key_hex: str, at: float, signers: Sequence[CryptoSigner]) -> dict[str, Any]:
    """An envelope introducing a person. Further signatures may be added by others with `countersign`."""
    key_id = key_id_of(public_key_hex)
    fields = {"name": name, "public_key": public_key_hex, "key_id": key_id, "created_at": at}
    _check_fields(fields)
    return seal(canonical(fields), PAYLOAD_TYPE_OPERATOR, signers)


def countersign(envelope: Mapping[str, Any], signer: CryptoSigner) -> dict[str, Any]:
    """The same introduction with one more signature, so that no two private keys need to meet."""
    return _read(envelope).also_signed_by(signer)


def check_operator(envelope: Mapping[str, Any], known: Sequence[Operator]) -> Operator:
    signed = _read(envelope)
    fields = _fields(signed)
    name, key_id = fields["name"], fields["key_id"]
    if any(name == other.name or key_id == other.key_id for other in known):
        raise PolicyError(f"the operator {name!r} or their key is known already; take another name and key")
    if not signed.is_signed_by(key_id, fields["public_key"]):
        raise PolicyError(f"the introduction of {name!r} is not signed with the key it introduces")
    _check_others(signed, key_id, known)
    return Operator(**fields, envelope=envelope)


def _check_others(signed: Signed, own: str, known: Sequence[Operator]) -> None:
    keys = {other.key_id: other.public_key for other in known}
    others = signed.signatures.keys() - {own}
    for key_id in sorted(others):
        if key_id not in keys or not signed.is_signed_by(key_id, keys[key_id]):
            raise PolicyError(f"the introduction carries a signature of {key_id} that is not a known operator's")
    if known and not others:
        names = ", ".join(sorted(other.name for other in known))
        raise PolicyError(f"the introduction needs the signature of a known operator as well: {names}")


def _read(envelope: Mapping[str, Any]) -> Signed:
    signed = read(envelope)
    if signed.payload_type != PAYLOAD_TYPE_OPERATOR:
        raise PolicyError(f"payloadType must be {PAYLOAD_TYPE_OPERATOR}, got {signed.payload_type!r}")
    return signed


def _fields(signed: Signed) -> dict[str, Any]:
    fields = fields_of(signed.payload, _FIELDS)
    _check_fields(fields)
    return fields


def _check_fields(fields: Mapping[str, Any]) -> None:
    name, public_key, at = fields["name"], fields["public_key"], fields["created_at"]
    if not isinstance(name, str) or name != name.strip() or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise PolicyError(f"an operator's name has 1 to {MAX_NAME_LENGTH} characters and no space around, got {name!r}")
    if not name.isprintable():
        raise PolicyError(f"an operator's name must be printable, got {name!r}")
    if not isinstance(public_key, str) or key_id_of(public_key) != fields["key_id"]:
        raise PolicyError(f"the key id {fields['key_id']!r} does not belong to the public key {public_key!r}")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < LATEST_TIME:
        raise PolicyError(f"created_at must be a time in seconds since 1970, got {at!r}")
