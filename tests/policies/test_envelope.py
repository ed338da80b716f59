"""An envelope has one spelling, and nothing in it can change unseen."""

import base64
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from policies.engine import PolicyError
from policies.envelope import MAX_SIGNATURES, MalformedError, canonical, fields_of, key_id_of, read, seal

SIGNER, OTHER = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
KEY_ID, PUBLIC = SIGNER.public_key.keyid, SIGNER.public_key.keyval["public"]
SEALED = seal(b"some bytes", "text/plain", [SIGNER])


def changed(**fields):
    return copy.deepcopy(SEALED) | fields


def test_what_was_sealed_is_read_back_and_verified():
    signed = read(SEALED)
    assert signed.payload == b"some bytes"
    assert signed.payload_type == "text/plain"
    assert signed.is_signed_by(KEY_ID, PUBLIC)


def test_reading_leaves_the_envelope_as_it_was():
    before = copy.deepcopy(SEALED)
    read(SEALED).is_signed_by(KEY_ID, PUBLIC)
    assert before == SEALED
    assert json.loads(json.dumps(SEALED)) == SEALED


def test_only_the_key_that_signed_verifies():
    other = OTHER.public_key
    assert not read(SEALED).is_signed_by(other.keyid, other.keyval["public"])
    assert not read(SEALED).is_signed_by(KEY_ID, other.keyval["public"])


def test_a_key_id_must_belong_to_the_public_key():
    # Someone else's signature under the right key id, as a forged operators' table would have it.
    forged = copy.deepcopy(seal(b"some bytes", "text/plain", [OTHER]))
    forged["signatures"][0]["keyid"] = KEY_ID
    assert not read(forged).is_signed_by(KEY_ID, OTHER.public_key.keyval["public"])
    by_other = read(seal(b"some bytes", "text/plain", [OTHER]))
    assert not by_other.is_signed_by(KEY_ID, OTHER.public_key.keyval["public"])


def test_the_signature_covers_the_type_as_well():
    assert not read(changed(payloadType="text/html")).is_signed_by(KEY_ID, PUBLIC)


@given(bit=st.integers(0, 8 * len(b"some bytes") - 1))
def test_any_flipped_bit_of_the_payload_breaks_the_signature(bit):
    flipped = bytearray(b"some bytes")
    flipped[bit // 8] ^= 1 << bit % 8
    envelope = changed(payload=base64.b64encode(bytes(flipped)).decode())
    assert not read(envelope).is_signed_by(KEY_ID, PUBLIC)


@given(bit=st.integers(0, 64 * 8 - 1))
def test_any_flipped_bit_of_the_signature_breaks_it(bit):
    raw = bytearray(base64.b64decode(SEALED["signatures"][0]["sig"]))
    raw[bit // 8] ^= 1 << bit % 8
    envelope = changed(signatures=[{"keyid": KEY_ID, "sig": base64.b64encode(bytes(raw)).decode()}])
    assert not read(envelope).is_signed_by(KEY_ID, PUBLIC)


@given(size=st.integers(0, 200))
def test_a_signature_of_another_size_is_no_signature(size):
    raw = (base64.b64decode(SEALED["signatures"][0]["sig"]) * 4)[:size]
    envelope = changed(signatures=[{"keyid": KEY_ID, "sig": base64.b64encode(raw).decode()}])
    assert read(envelope).is_signed_by(KEY_ID, PUBLIC) == (size == 64)


ONE = SEALED["signatures"][0]


@pytest.mark.parametrize(
    "envelope",
    [
        None,
        [],
        "text",
        {},
        changed(extra=1),
        {"payload": SEALED["payload"], "payloadType": "text/plain"},
        changed(payload=None),
        changed(payload=b"c29tZSBieXRlcw=="),
        changed(payload="not base64!"),
        changed(payload="ü"),
        changed(payload="c29tZSBieXRlcx=="),  # the same bytes with an unused bit set
        changed(payload="c29tZSBieXRlcw"),
        changed(payload="c29tZSBieXRlcw==\n"),
        changed(payload="_-__"),
        changed(payloadType=None),
        changed(payloadType=7),
        changed(signatures=[]),
        changed(signatures={}),
        changed(signatures="none"),
        changed(signatures=[ONE, ONE]),
        changed(signatures=[{"keyid": str(n), "sig": ONE["sig"]} for n in range(MAX_SIGNATURES + 1)]),
        changed(signatures=[None]),
        changed(signatures=[{"keyid": KEY_ID}]),
        changed(signatures=[ONE | {"extra": 1}]),
        changed(signatures=[ONE | {"keyid": 5}]),
        changed(signatures=[ONE | {"sig": "zz"}]),
        changed(signatures=[ONE | {"sig": 5}]),
    ],
)
def test_an_envelope_of_another_shape_is_malformed(envelope):
    with pytest.raises(MalformedError):
        read(envelope)


@pytest.mark.parametrize(
    "public_key",
    ["", "zz", "00" * 31, PUBLIC.upper() + "AA", PUBLIC[:32] + " " + PUBLIC[32:]],
    ids=["empty", "not hex", "short", "long", "spaced"],  # the key is new at every start; the names are not
)
def test_a_public_key_is_32_bytes_in_plain_hex(public_key):
    with pytest.raises(PolicyError, match="public key"):
        key_id_of(public_key)


def test_a_key_id_is_the_one_securesystemslib_gives():
    assert key_id_of(PUBLIC) == KEY_ID


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"nope",
        b"[]",
        b'"a"',
        b'{"a": 1}',
        b'{"a":1,"a":1}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\u0041"}',
        b"[" * 100_000,
        b'{"a":1}\n',
        b'\xef\xbb\xbf{"a":1}',
        b'{"b":1}',
        b'{"a":1,"b":1}',
        b"{}",
    ],
)
def test_a_payload_in_another_spelling_is_malformed(payload):
    with pytest.raises(MalformedError):
        fields_of(payload, {"a"})


@given(
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]))
)
def test_what_is_written_canonically_is_read_back(value):
    assert fields_of(canonical({"a": value}), {"a"}) == {"a": value}
