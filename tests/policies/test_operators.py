"""Nobody becomes an operator without proving their key, nor, after the first, without a known operator's word."""

import pytest
from securesystemslib.signer import CryptoSigner

from policies.engine import PolicyError
from policies.envelope import canonical, seal
from policies.operators import PAYLOAD_TYPE_OPERATOR, check_operator, countersign, introduce
from policies.statement import PAYLOAD_TYPE

AT = 1_800_000_000.0


def public(signer):
    return signer.public_key.keyval["public"]


@pytest.fixture(scope="module")
def carol_key():
    return CryptoSigner.generate_ed25519()


def test_the_first_operator_vouches_for_themselves(carol_key):
    envelope = introduce("carol", public(carol_key), AT, [carol_key])
    carol = check_operator(envelope, [])
    assert (carol.name, carol.public_key, carol.created_at) == ("carol", public(carol_key), AT)
    assert carol.key_id == carol_key.public_key.keyid
    assert carol.envelope == envelope


def test_the_next_one_needs_a_known_operator(desk, carol_key):
    alone = introduce("carol", public(carol_key), AT, [carol_key])
    with pytest.raises(PolicyError, match="needs the signature of a known operator as well: ann, bob"):
        check_operator(alone, desk.operators)
    assert check_operator(countersign(alone, desk.bob_key), desk.operators).name == "carol"


def test_a_strangers_word_is_not_enough_and_not_ignored(desk, carol_key):
    by_stranger = introduce("carol", public(carol_key), AT, [carol_key, desk.stranger_key])
    with pytest.raises(PolicyError, match="not a known operator's"):
        check_operator(by_stranger, desk.operators)
    with pytest.raises(PolicyError, match="not a known operator's"):
        check_operator(by_stranger, [])
    with pytest.raises(PolicyError, match="not a known operator's"):
        check_operator(countersign(by_stranger, desk.ann_key), desk.operators)


def test_a_known_operator_cannot_introduce_a_key_nobody_holds(desk, carol_key):
    with pytest.raises(PolicyError, match="not signed with the key it introduces"):
        check_operator(introduce("carol", public(carol_key), AT, [desk.ann_key]), desk.operators)


def test_a_copied_signature_of_a_known_operator_does_not_verify(desk, carol_key):
    theirs = introduce("dave", public(desk.stranger_key), AT, [desk.ann_key])["signatures"]
    envelope = introduce("carol", public(carol_key), AT, [carol_key])
    envelope["signatures"] += theirs
    with pytest.raises(PolicyError, match="not a known operator's"):
        check_operator(envelope, desk.operators)


@pytest.mark.parametrize(("name", "key"), [("ann", "carol_key"), ("carol", "ann_key")])
def test_a_name_and_a_key_are_taken_once(desk, carol_key, name, key):
    signer = carol_key if key == "carol_key" else desk.ann_key
    signers = [signer] if signer is desk.ann_key else [signer, desk.ann_key]
    with pytest.raises(PolicyError, match="known already"):
        check_operator(introduce(name, public(signer), AT, signers), desk.operators)


def test_an_introduction_signed_for_another_purpose_is_refused(carol_key):
    fields = {"name": "carol", "public_key": public(carol_key), "key_id": carol_key.public_key.keyid, "created_at": AT}
    with pytest.raises(PolicyError, match="payloadType"):
        check_operator(seal(canonical(fields), PAYLOAD_TYPE, [carol_key]), [])


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": "0" * 64},
        {"public_key": "00"},
        {"public_key": 7},
        {"name": ""},
        {"name": " carol"},
        {"name": "ca\nrol"},
        {"name": "c" * 65},
        {"name": None},
        {"created_at": "now"},
        {"created_at": True},
        {"created_at": -1},
        {"created_at": 1e300},
        {"more": 1},
    ],
)
def test_an_introduction_of_another_shape_is_refused(carol_key, changes):
    fields = {"name": "carol", "public_key": public(carol_key), "key_id": carol_key.public_key.keyid, "created_at": AT}
    with pytest.raises(PolicyError):
        check_operator(seal(canonical(fields | changes), PAYLOAD_TYPE_OPERATOR, [carol_key]), [])


def test_a_bad_name_is_refused_before_anything_is_signed(carol_key):
    with pytest.raises(PolicyError, match="name"):
        introduce("", public(carol_key), AT, [carol_key])
