"""Going back needs a place to go and a reason, and nothing else."""

from dataclasses import replace

import pytest

from policies.rollback import RollbackFacts, may_rollback

BACK = RollbackFacts(actor="operator:ann", champion="new", target="old", reason="it swears")


@pytest.mark.parametrize("actor", ["operator:ann", "health"])
def test_anyone_may_go_back(policy_set, ids, actor):
    ruling = may_rollback(replace(BACK, actor=actor), policy_set)
    assert ruling.allowed
    assert ids(ruling) == ["rollback.anyone"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"target": None}, "rollback.no_target"),
        ({"target": ""}, "rollback.no_target"),
        ({"target": "new"}, "rollback.same_target"),
        ({"reason": "  "}, "rollback.no_reason"),
    ],
)
def test_each_rule_keeps_a_rollback_from_happening(policy_set, ids, changes, rule):
    ruling = may_rollback(replace(BACK, **changes), policy_set)
    assert not ruling.allowed
    assert ids(ruling) == [rule]
