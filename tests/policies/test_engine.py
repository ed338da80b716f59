"""The engine allows only what a rule allows, and says which rules decided."""

import pytest

from policies.engine import DAEMON, DEFAULT_DENY, PolicyError, PolicySet, principal_of
from store.records import Outcome

SCHEMA = """
entity Daemon; entity Operator; entity Checkpoint;
action "go", "idle" appliesTo {
  principal: [Daemon, Operator], resource: [Checkpoint], context: { level: Long, spare?: Long },
};
"""
PERMIT = """@id("go.any") @reason("anyone may go") permit (principal, action == Action::"go", resource);"""
TOO_LOW = """@id("go.low") @reason("too low") forbid (principal, action == Action::"go", resource)
when { context.level < 5 };"""
NO_SPARE = """@id("go.no_spare") @reason("no spare") @verdict("inconclusive")
forbid (principal, action == Action::"go", resource) unless { context has spare };"""
CHECKPOINT = ("Checkpoint", "c1")


def decide(text, context, action="go", principal=DAEMON):
    return PolicySet.parse(text, SCHEMA).decide(action, principal, CHECKPOINT, context)


def test_a_permit_allows_and_is_named():
    ruling = decide(PERMIT, {"level": 5})
    assert ruling.allowed
    assert ruling.outcome is Outcome.PASS
    assert [(hit.id, hit.effect, hit.reason) for hit in ruling.rules] == [("go.any", "permit", "anyone may go")]
    assert ruling.reason == "anyone may go"


def test_nothing_is_allowed_without_a_permit():
    ruling = decide(PERMIT, {"level": 5}, action="idle")
    assert not ruling.allowed
    assert ruling.outcome is Outcome.INCONCLUSIVE
    assert ruling.rules == (DEFAULT_DENY,)


def test_an_empty_policy_set_allows_nothing():
    assert decide("", {"level": 5}).rules == (DEFAULT_DENY,)


def test_a_forbid_beats_a_permit_and_fails(ids):
    ruling = decide(PERMIT + TOO_LOW, {"level": 4})
    assert not ruling.allowed
    assert ruling.outcome is Outcome.FAIL
    assert ids(ruling) == ["go.low"]


def test_an_inconclusive_forbid_alone_is_inconclusive(ids):
    ruling = decide(PERMIT + TOO_LOW + NO_SPARE, {"level": 5})
    assert not ruling.allowed
    assert ruling.outcome is Outcome.INCONCLUSIVE
    assert ids(ruling) == ["go.no_spare"]


def test_a_failing_forbid_outweighs_an_inconclusive_one(ids):
    ruling = decide(PERMIT + TOO_LOW + NO_SPARE, {"level": 4})
    assert ruling.outcome is Outcome.FAIL
    assert ids(ruling) == ["go.low", "go.no_spare"]


@pytest.mark.parametrize(
    "context",
    [{}, {"level": True}, {"level": "5"}, {"level": None}, {"level": 5.5}, {"level": float("nan")}, {"level": 2**63}],
)
def test_a_missing_or_mistyped_fact_allows_nothing(context):
    ruling = decide(PERMIT, context)
    assert not ruling.allowed
    assert ruling.outcome is Outcome.INCONCLUSIVE
    assert ruling.errors
    assert ruling.rules == (DEFAULT_DENY,)


def test_a_fact_the_schema_does_not_know_allows_nothing():
    assert not decide(PERMIT, {"level": 5, "sugar": 1}).allowed


def test_a_request_the_schema_does_not_know_allows_nothing():
    assert not decide(PERMIT, {"level": 5}, principal=("Stranger", "x")).allowed
    assert not decide(PERMIT, {"level": 5}, action="fly").allowed


def test_an_error_in_one_rule_denies_even_what_another_permits():
    overflow = """@id("go.huge") @reason("overflows") forbid (principal, action == Action::"go", resource)
    when { context.level * 2 < 0 };"""
    ruling = decide(PERMIT + overflow, {"level": 2**62})
    assert not ruling.allowed
    assert ruling.outcome is Outcome.INCONCLUSIVE
    assert ruling.rules == (DEFAULT_DENY,)
    assert "overflow" in ruling.reason


def test_a_ruling_keeps_the_facts_it_was_made_on():
    assert decide(PERMIT, {"level": 7}).facts == {"level": 7}


def test_rules_keep_their_names_whatever_their_order(ids):
    fillers = "".join(
        f'@id("idle.r{n}") @reason("r{n}") forbid (principal, action == Action::"idle", resource);' for n in range(12)
    )
    assert ids(decide(fillers + TOO_LOW + PERMIT, {"level": 1})) == ["go.low"]
    assert len(decide(fillers + PERMIT, {"level": 9}, action="idle").rules) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("permit (", "does not fit its schema"),
        ('@id("x") @reason("y") permit (principal, action == Action::"fly", resource);', "does not fit its schema"),
        ('@id("x") @reason("y") permit (principal, action, resource) when { context.spare > 1 };', "does not fit"),
        ('@reason("y") permit (principal, action, resource);', "lacks an @id or @reason"),
        ('@id("x") permit (principal, action, resource);', "lacks an @id or @reason"),
        ('@id("") @reason("y") permit (principal, action, resource);', "lacks an @id or @reason"),
        (PERMIT + PERMIT, "'go.any' is taken"),
        ('@id("default.deny") @reason("y") permit (principal, action, resource);', "'default.deny' is taken"),
        ('@id("x") @reason("y") @verdict("inconclusve") forbid (principal, action, resource);', "@verdict"),
        ('@id("x") @reason("y") @verdict forbid (principal, action, resource);', "@verdict"),
        ('@id("x") @reason("y") @verdict("inconclusive") permit (principal, action, resource);', "@verdict"),
        ('@id("x") @reason("y") permit (principal == ?principal, action, resource);', "template"),
    ],
)
def test_a_policy_set_that_is_not_sound_is_refused(text, message):
    with pytest.raises(PolicyError, match=message):
        PolicySet.parse(text, SCHEMA)


def test_a_broken_schema_is_refused():
    with pytest.raises(PolicyError):
        PolicySet.parse(PERMIT, "entity")


def test_the_id_follows_every_change_of_either_text():
    sets = [(PERMIT, SCHEMA), (PERMIT + " ", SCHEMA), (PERMIT, SCHEMA + " "), (PERMIT + TOO_LOW, SCHEMA)]
    digests = [PolicySet.parse(*texts).id for texts in sets]
    assert len(set(digests)) == len(sets)
    assert digests[0] == PolicySet.parse(PERMIT, SCHEMA).id
    assert len(digests[0]) == 64


def test_the_shipped_rules_each_have_a_name_a_reason_and_an_action(policy_set):
    names = [rule.id for rule in policy_set.rules]
    assert len(names) == len(set(names))
    assert {name.split(".")[0] for name in names} == {
        "ask",
        "learn",
        "prefer",
        "hold",
        "train",
        "promote",
        "approve",
        "rollback",
    }
    assert all(rule.reason for rule in policy_set.rules)


def test_an_actor_is_an_operator_only_when_named_as_one():
    assert principal_of("operator:ann") == ("Operator", "ann")
    for actor in ("schedule", "health", "operator:", "ann", ""):
        assert principal_of(actor) == DAEMON
