"""No unapproved weights: every way to a yes that is not a full one is refused, each with its own exit code."""

import base64
import copy
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.approval import (
    EXIT_CODES,
    PAYLOAD_TYPE,
    Accepted,
    Refusal,
    Refused,
    Statement,
    examine,
    sign,
    standing,
    still_holds,
)
from policies.engine import PolicySet, shipped
from policies.envelope import MalformedError, canonical, seal
from policies.operators import PAYLOAD_TYPE_OPERATOR
from store.records import Decision, Outcome

NOW = 1_800_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR

CODES = {
    "UNKNOWN_KEY": 10,
    "BAD_SIGNATURE": 11,
    "EXPIRED": 12,
    "CHAMPION_MOVED": 13,
    "SAME_OPERATOR": 14,
    "VERDICT_FAIL": 15,
    "VERDICT_INCONCLUSIVE": 16,
    "POLICY_MOVED": 17,
    "EVALUATION_MOVED": 18,
    "REPLAYED": 19,
    "WRONG_TYPE": 20,
    "REJECTED": 21,
    "MALFORMED": 22,
    "NOT_YET_VALID": 23,
    "UNKNOWN_CANDIDATE": 24,
    "OVERLONG": 25,
    "FORBIDDEN": 26,
    "TOO_FEW": 27,
}


def is_refused(answer, refusal):
    assert isinstance(answer, Refused), answer
    assert answer.refusal is refusal, answer
    assert answer.exit_code == CODES[refusal.name]
    return True


def test_exit_codes_are_stable_and_each_refusal_has_one():
    assert {refusal.name: refusal.exit_code for refusal in Refusal} == CODES
    assert set(EXIT_CODES) == set(Refusal)


def test_a_full_yes_is_accepted_with_the_statement_that_was_signed(desk):
    answer = desk.examine(desk.signed())
    assert answer == Accepted(desk.statement())
    assert answer.statement.decision is Decision.APPROVE


def test_a_second_operator_may_add_a_yes(desk):
    assert isinstance(desk.examine(desk.signed_by_bob(), signers=frozenset({desk.ann.key_id})), Accepted)


def test_an_unknown_key_is_refused(desk):
    stranger = desk.stranger_key
    envelope = sign(desk.statement(key_id=stranger.public_key.keyid), stranger)
    assert is_refused(desk.examine(envelope), Refusal.UNKNOWN_KEY)
    assert is_refused(examine(desk.signed(), [], desk.state, NOW, desk.policy_set), Refusal.UNKNOWN_KEY)


def test_a_signature_under_anothers_key_id_is_refused(desk):
    forged = seal(desk.statement().to_bytes(), PAYLOAD_TYPE, [desk.stranger_key])
    forged["signatures"][0]["keyid"] = desk.ann.key_id
    assert is_refused(desk.examine(forged), Refusal.BAD_SIGNATURE)


@pytest.mark.parametrize("changes", [{"operator": "bob"}, {"key_id": "other"}, {"operator": "bob", "key_id": "other"}])
def test_nobody_signs_in_anothers_name(desk, changes):
    envelope = seal(desk.statement(**changes).to_bytes(), PAYLOAD_TYPE, [desk.ann_key])
    assert is_refused(desk.examine(envelope), Refusal.BAD_SIGNATURE)


def test_an_operator_row_whose_key_was_swapped_verifies_nothing(desk):
    forged = seal(desk.statement().to_bytes(), PAYLOAD_TYPE, [desk.stranger_key])
    forged["signatures"][0]["keyid"] = desk.ann.key_id
    swapped = replace(desk.ann, public_key=desk.stranger_key.public_key.keyval["public"])
    assert is_refused(examine(forged, [swapped], desk.state, NOW, desk.policy_set), Refusal.BAD_SIGNATURE)


def test_an_operator_row_with_a_broken_key_is_refused_not_raised(desk):
    broken = replace(desk.ann, public_key="zz")
    assert is_refused(examine(desk.signed(), [broken], desk.state, NOW, desk.policy_set), Refusal.MALFORMED)


@pytest.mark.parametrize("payload_type", [PAYLOAD_TYPE_OPERATOR, "", None, PAYLOAD_TYPE + " ", PAYLOAD_TYPE.upper()])
def test_a_signature_made_for_another_purpose_is_refused(desk, payload_type):
    envelope = seal(desk.statement().to_bytes(), payload_type or "", [desk.ann_key]) | {"payloadType": payload_type}
    assert is_refused(desk.examine(envelope), Refusal.WRONG_TYPE)


@pytest.mark.parametrize("envelope", [None, [], "x", {}])
def test_what_is_no_envelope_is_refused(desk, envelope):
    assert is_refused(desk.examine(envelope), Refusal.WRONG_TYPE)


def test_an_envelope_relabelled_as_an_approval_is_refused(desk):
    relabelled = dict(desk.bob.envelope) | {"payloadType": PAYLOAD_TYPE}
    relabelled["signatures"] = [one for one in relabelled["signatures"] if one["keyid"] == desk.bob.key_id]
    assert is_refused(desk.examine(relabelled), Refusal.BAD_SIGNATURE)


@pytest.mark.parametrize(
    "change",
    [
        {"candidate": None},
        {"candidate": ""},
        {"champion": 5},
        {"nonce": ["a"]},
        {"decision": "maybe"},
        {"decision": None},
        {"reason": "no"},
        {"reason": "   no    "},
        {"reason": "x" * 4001},
        {"issued_at": "now"},
        {"issued_at": True},
        {"expires_at": 1e300},
        {"expires_at": -5},
        {"expires_at": NOW},
        {"expires_at": NOW - 1},
        {"extra": "field"},
        {"candidate": ...},
        {"reason": ...},
        {"expires_at": ...},
    ],
)
def test_a_signed_statement_of_another_shape_is_malformed(desk, change):
    fields = {name: value for name, value in (asdict(desk.statement()) | change).items() if value is not ...}
    envelope = seal(canonical(fields), PAYLOAD_TYPE, [desk.ann_key])
    assert is_refused(desk.examine(envelope), Refusal.MALFORMED)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", b"null", b"[" * 50_000])
def test_a_signed_payload_that_is_no_statement_is_malformed(desk, payload):
    assert is_refused(desk.examine(seal(payload, PAYLOAD_TYPE, [desk.ann_key])), Refusal.MALFORMED)


def test_a_statement_in_another_spelling_is_malformed(desk):
    payload = desk.statement().to_bytes().replace(b",", b", ", 1)
    assert is_refused(desk.examine(seal(payload, PAYLOAD_TYPE, [desk.ann_key])), Refusal.MALFORMED)


def test_an_approval_carries_one_signature(desk):
    both = seal(desk.statement().to_bytes(), PAYLOAD_TYPE, [desk.ann_key, desk.bob_key])
    assert is_refused(desk.examine(both), Refusal.MALFORMED)


def test_time_turns_a_yes_into_a_no_and_never_back(desk):
    envelope = desk.signed()
    assert isinstance(desk.examine(envelope, now=NOW + 72 * HOUR - 1), Accepted)
    for later in (72 * HOUR, 73 * HOUR, 3650 * DAY):
        assert is_refused(desk.examine(envelope, now=NOW + later), Refusal.EXPIRED)


def test_an_approval_from_the_future_is_refused_but_for_a_little_skew(desk):
    assert isinstance(desk.examine(desk.signed(), now=NOW - 60), Accepted)
    assert is_refused(desk.examine(desk.signed(), now=NOW - 61), Refusal.NOT_YET_VALID)
    assert is_refused(desk.examine(desk.signed(), now=float("nan")), Refusal.NOT_YET_VALID)


def test_no_approval_lives_longer_than_30_days(desk):
    assert isinstance(desk.examine(desk.signed(expires_at=NOW + 30 * DAY)), Accepted)
    assert is_refused(desk.examine(desk.signed(expires_at=NOW + 30 * DAY + 1)), Refusal.OVERLONG)


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ({"candidate": None}, Refusal.UNKNOWN_CANDIDATE),
        ({"candidate": "other"}, Refusal.UNKNOWN_CANDIDATE),
        ({"champion": "other"}, Refusal.CHAMPION_MOVED),
        ({"base": "other"}, Refusal.CHAMPION_MOVED),
        ({"policy": "other"}, Refusal.POLICY_MOVED),
        ({"evaluation": "other"}, Refusal.EVALUATION_MOVED),
        ({"evaluation": None}, Refusal.EVALUATION_MOVED),
        ({"dataset": "other"}, Refusal.EVALUATION_MOVED),
        ({"used_nonces": frozenset({"0123456789abcdef"})}, Refusal.REPLAYED),
        ({"is_rejected": True}, Refusal.REJECTED),
        ({"verdict": Outcome.FAIL}, Refusal.VERDICT_FAIL),
        ({"verdict": Outcome.INCONCLUSIVE}, Refusal.VERDICT_INCONCLUSIVE),
        ({"verdict": None}, Refusal.VERDICT_INCONCLUSIVE),
    ],
)
def test_a_yes_is_stale_once_what_it_was_given_for_has_moved(desk, state, refusal):
    assert is_refused(desk.examine(desk.signed(), **state), refusal)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"candidate": "other"}, Refusal.UNKNOWN_CANDIDATE),
        ({"champion": "other"}, Refusal.CHAMPION_MOVED),
        ({"base": "other"}, Refusal.CHAMPION_MOVED),
        ({"policy": "other"}, Refusal.POLICY_MOVED),
        ({"evaluation": "other"}, Refusal.EVALUATION_MOVED),
        ({"dataset": "other"}, Refusal.EVALUATION_MOVED),
        ({"nonce": "used"}, Refusal.REPLAYED),
    ],
)
def test_a_yes_to_something_else_is_not_a_yes_to_this(desk, changes, refusal):
    assert is_refused(desk.examine(desk.signed(**changes)), refusal)


@pytest.mark.parametrize("decision", Decision)
def test_what_serves_already_is_neither_approved_nor_rejected(desk, decision):
    champion = desk.state.champion
    answer = desk.examine(desk.signed(candidate=champion, decision=decision), candidate=champion)
    assert is_refused(answer, Refusal.CHAMPION_MOVED)
    assert "serves already; first take it back: honed rollback" in answer.message


def test_a_verdict_under_other_rules_than_those_in_force_is_stale(desk):
    answer = desk.examine(desk.signed(policy="older"), policy="older")
    assert is_refused(answer, Refusal.POLICY_MOVED)


def test_one_operator_counts_once(desk):
    signers = frozenset({desk.ann.key_id})
    assert is_refused(desk.examine(desk.signed(nonce="another one"), signers=signers), Refusal.SAME_OPERATOR)


def test_one_operator_with_two_keys_counts_once(desk):
    second = replace(desk.ann, key_id=desk.bob.key_id, public_key=desk.bob.public_key)
    state = replace(desk.state, signers=frozenset({desk.ann.key_id}))
    envelope = desk.signed_by_bob(operator="ann")
    answer = examine(envelope, [desk.ann, second], state, NOW, desk.policy_set)
    assert is_refused(answer, Refusal.SAME_OPERATOR)


def test_a_no_needs_no_verdict_and_no_standing_champion(desk):
    moved = {"verdict": None, "evaluation": None, "champion": "other", "signers": frozenset({desk.ann.key_id})}
    answer = desk.examine(desk.signed(decision=Decision.REJECT), **moved)
    assert isinstance(answer, Accepted)
    assert answer.statement.decision is Decision.REJECT


@pytest.mark.parametrize(
    ("changes", "now", "state", "refusal"),
    [
        ({}, NOW + 72 * HOUR, {}, Refusal.EXPIRED),
        ({"nonce": "used"}, NOW, {}, Refusal.REPLAYED),
        ({"candidate": "other"}, NOW, {}, Refusal.UNKNOWN_CANDIDATE),
        ({}, NOW, {"is_rejected": True}, Refusal.REJECTED),
    ],
)
def test_a_no_must_be_timely_new_and_about_this_candidate(desk, changes, now, state, refusal):
    envelope = desk.signed(decision=Decision.REJECT, **changes)
    assert is_refused(desk.examine(envelope, now=now, **state), refusal)


ANYONE = '@id("approve.any") @reason("any") permit (principal, action == Action::"approve", resource);'
APPROVE = """entity Operator; entity Checkpoint; action "approve" appliesTo {
  principal: [Operator], resource: [Checkpoint], context: {
    is_signed: Bool, is_in_time: Bool, is_known_candidate: Bool, is_fresh: Bool, is_rejected: Bool,
    is_champion_same: Bool, is_policy_same: Bool, is_evaluation_same: Bool, is_verdict_pass: Bool,
    is_new_signer: Bool } };"""


def site_rules(text):
    """A policy set of a site's own, for `approve` alone."""
    return PolicySet.parse(text, APPROVE)


def under(desk, rules, envelope=None, **state):
    state = replace(desk.state, policy=rules.id, **state)
    envelope = envelope or desk.signed(policy=rules.id)
    return examine(envelope, desk.operators, state, NOW, rules)


def test_a_site_can_add_a_no(desk):
    away = '@id("site.ann") @reason("ann is away") forbid (principal == Operator::"ann", action, resource);'
    rules = site_rules(ANYONE + away)
    answer = under(desk, rules)
    assert is_refused(answer, Refusal.FORBIDDEN)
    assert answer.message == "ann is away"
    assert isinstance(under(desk, rules, desk.signed_by_bob(policy=rules.id)), Accepted)


def test_without_any_rule_nothing_is_approved(desk):
    assert is_refused(under(desk, site_rules("")), Refusal.FORBIDDEN)


def test_no_rule_can_turn_a_no_into_a_yes(desk):
    lenient = site_rules(ANYONE)
    assert isinstance(under(desk, lenient), Accepted)
    assert is_refused(under(desk, lenient, verdict=Outcome.FAIL), Refusal.VERDICT_FAIL)
    assert is_refused(under(desk, lenient, is_rejected=True), Refusal.REJECTED)
    assert is_refused(under(desk, lenient, champion="other"), Refusal.CHAMPION_MOVED)


FULL = dict.fromkeys(
    [
        "is_signed",
        "is_in_time",
        "is_known_candidate",
        "is_fresh",
        "is_champion_same",
        "is_policy_same",
        "is_evaluation_same",
        "is_verdict_pass",
        "is_new_signer",
    ],
    True,
) | {"is_rejected": False}


@pytest.mark.parametrize("fact", [None, *FULL])
def test_the_shipped_rules_themselves_need_every_condition(policy_set, fact):
    context = FULL | ({fact: not FULL[fact]} if fact else {})
    ruling = policy_set.decide("approve", ("Operator", "ann"), ("Checkpoint", "c"), context)
    assert ruling.allowed == (fact is None)
    if fact:
        incomplete = {name: value for name, value in FULL.items() if name != fact}
        assert not policy_set.decide("approve", ("Operator", "ann"), ("Checkpoint", "c"), incomplete).allowed


def test_the_daemon_cannot_approve(policy_set):
    assert not policy_set.decide("approve", ("Daemon", "honed"), ("Checkpoint", "c"), FULL).allowed


def test_signing_refuses_a_key_the_statement_does_not_name(desk):
    with pytest.raises(MalformedError, match="names key"):
        sign(desk.statement(), desk.bob_key)


def test_a_statement_that_would_be_refused_cannot_be_made(desk):
    with pytest.raises(MalformedError, match="3 to 4000 characters, got 'no'"):
        desk.statement(reason="no")
    with pytest.raises(MalformedError, match="decision must be a Decision"):
        desk.statement(decision="approve")


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(nonce=TEXT, reason=TEXT, issued=st.integers(0, 10**9) | st.floats(0, 1e9), life=st.floats(1, 1e6))
def test_a_statement_survives_its_own_bytes(desk, nonce, reason, issued, life):
    made = desk.statement(nonce=nonce, reason=reason + "0123456789", issued_at=issued, expires_at=issued + life)
    assert Statement.from_bytes(made.to_bytes()) == made


@given(data=st.data())
def test_any_flipped_bit_of_an_approval_is_refused(desk, data):
    envelope = desk.signed()
    raw = bytearray(base64.b64decode(envelope["payload"]))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    envelope["payload"] = base64.b64encode(bytes(raw)).decode()
    assert is_refused(desk.examine(envelope), Refusal.BAD_SIGNATURE)


def flips(text):
    """Every text that differs in one bit and is still text."""
    raw = text.encode()
    for bit in range(8 * len(raw)):
        edited = bytearray(raw)
        edited[bit // 8] ^= 1 << bit % 8
        try:
            yield bytes(edited).decode()
        except UnicodeDecodeError:
            continue


@pytest.mark.parametrize("place", ["payload", "payloadType", "keyid", "sig"])
def test_every_single_bit_edit_of_the_envelope_as_text_is_refused(desk, place):
    envelope = desk.signed()
    for edited in flips(envelope.get(place) or envelope["signatures"][0][place]):
        forged = copy.deepcopy(envelope)
        (forged if place in forged else forged["signatures"][0])[place] = edited
        assert isinstance(desk.examine(forged), Refused), edited


def standing_names(desk, *envelopes, **state):
    found = standing(envelopes, desk.operators, replace(desk.state, **state), NOW + HOUR, desk.policy_set)
    return [statement.operator for statement in found]


def test_recorded_yeses_stand_while_all_they_were_given_for_is_the_same(desk):
    assert standing_names(desk, desk.signed(), desk.signed_by_bob()) == ["ann", "bob"]
    assert standing_names(desk) == []


@pytest.mark.parametrize(
    "state",
    [{"candidate": None}]
    + [{name: "other"} for name in ("candidate", "champion", "base", "policy", "evaluation", "dataset")],
)
def test_no_recorded_yes_stands_once_that_has_moved(desk, state):
    assert standing_names(desk, desk.signed(), desk.signed_by_bob(), **state) == []


def test_a_recorded_yes_that_nobody_known_signed_does_not_stand(desk):
    forged = seal(desk.statement(operator="bob", key_id=desk.bob.key_id).to_bytes(), PAYLOAD_TYPE, [desk.stranger_key])
    renamed = copy.deepcopy(forged)
    renamed["signatures"][0]["keyid"] = desk.bob.key_id
    assert standing_names(desk, desk.signed(), forged, renamed, {}, {"payload": "e30="}) == ["ann"]


@pytest.mark.parametrize(
    "changes", [{"decision": Decision.REJECT}, {"expires_at": NOW + HOUR}, {"issued_at": NOW + 2 * HOUR}]
)
def test_a_recorded_no_or_a_yes_out_of_its_time_does_not_stand(desk, changes):
    assert standing_names(desk, desk.signed(**changes), desk.signed_by_bob()) == ["bob"]


def holds(desk, envelopes, **changes):
    expected = {"candidate": desk.state.candidate, "champion": desk.state.champion, "at": NOW + HOUR, "required": 1}
    return still_holds(envelopes, desk.operators, **(expected | changes))


def test_a_promotion_holds_on_the_approvals_it_was_made_with(desk):
    assert holds(desk, [desk.signed()]) is None
    assert holds(desk, [desk.signed(), desk.signed_by_bob()], required=2) is None


def test_it_holds_long_after_the_approval_expired_if_it_was_made_in_time(desk):
    assert holds(desk, [desk.signed()], at=NOW + 71 * HOUR) is None
    assert is_refused(holds(desk, [desk.signed()], at=NOW + 72 * HOUR), Refusal.EXPIRED)


@pytest.mark.parametrize(
    ("changes", "expected", "refusal"),
    [
        ({}, {"candidate": "other"}, Refusal.UNKNOWN_CANDIDATE),
        ({}, {"champion": "other"}, Refusal.CHAMPION_MOVED),
        ({}, {"at": NOW - HOUR}, Refusal.NOT_YET_VALID),
        ({}, {"at": float("nan")}, Refusal.NOT_YET_VALID),
        ({"decision": Decision.REJECT}, {}, Refusal.REJECTED),
        ({"expires_at": NOW + 31 * DAY}, {}, Refusal.OVERLONG),
    ],
)
def test_a_promotion_does_not_hold_on_other_approvals(desk, changes, expected, refusal):
    assert is_refused(holds(desk, [desk.signed(**changes)], **expected), refusal)


def test_a_promotion_needs_enough_different_operators(desk):
    assert is_refused(holds(desk, []), Refusal.TOO_FEW)
    assert is_refused(holds(desk, [desk.signed()], required=2), Refusal.TOO_FEW)
    twice = [desk.signed(), desk.signed(nonce="another one")]
    assert is_refused(holds(desk, twice, required=2), Refusal.SAME_OPERATOR)
    assert holds(desk, [*twice, desk.signed_by_bob()], required=2) is None


def test_a_removed_operator_or_an_edited_envelope_does_not_hold(desk):
    envelope = desk.signed()
    expected = {"candidate": desk.state.candidate, "champion": desk.state.champion, "at": NOW, "required": 1}
    assert is_refused(still_holds([envelope], [desk.bob], **expected), Refusal.UNKNOWN_KEY)
    raw = base64.b64decode(envelope["payload"]).replace(b"all the changed", b"not one changed")
    envelope["payload"] = base64.b64encode(raw).decode()
    assert is_refused(still_holds([envelope], desk.operators, **expected), Refusal.BAD_SIGNATURE)


@pytest.mark.parametrize("required", [0, -1])
def test_nothing_holds_without_at_least_one_approval(desk, required):
    with pytest.raises(ValueError, match="at least one approval"):
        holds(desk, [desk.signed()], required=required)


def test_the_shipped_policy_set_is_the_same_each_time():
    assert shipped().id == shipped().id
