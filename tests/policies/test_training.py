"""When a run may start: each rule of `train` blocks by itself."""

from dataclasses import replace

import pytest

from policies.training import TrainFacts, may_train
from store.records import Outcome

READY = TrainFacts(
    trigger="schedule",
    new_rows=3,
    is_run_active=False,
    disk_free=2_000,
    disk_needed=1_000,
    is_quiet=True,
)


def test_a_run_starts_when_there_is_something_to_learn(policy_set, ids):
    ruling = may_train(READY, policy_set)
    assert ruling.allowed
    assert ids(ruling) == ["train.enough"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"new_rows": 2}, "train.too_few_rows"),
        ({"new_rows": 9, "min_rows": 10}, "train.too_few_rows"),
        ({"is_run_active": True}, "train.run_active"),
        ({"disk_free": 999}, "train.disk_full"),
        ({"disk_free": None}, "train.disk_unknown"),
        ({"disk_needed": None}, "train.disk_unknown"),
        ({"is_quiet": False}, "train.not_quiet"),
        ({"is_frozen": True}, "train.frozen"),
    ],
)
@pytest.mark.parametrize("trigger", ["schedule", "operator:ann"])
def test_each_rule_keeps_a_run_from_starting(policy_set, ids, changes, rule, trigger):
    ruling = may_train(replace(READY, trigger=trigger, **changes), policy_set)
    if rule == "train.not_quiet" and trigger == "operator:ann":
        assert ruling.allowed, "an operator may start a run at any hour"
    else:
        assert not ruling.allowed
        assert ids(ruling) == [rule]


def test_unknown_disk_space_is_inconclusive(policy_set):
    assert may_train(replace(READY, disk_free=None), policy_set).outcome is Outcome.INCONCLUSIVE


def test_calling_itself_operator_without_a_name_does_not_open_the_day(policy_set):
    assert not may_train(replace(READY, trigger="operator:", is_quiet=False), policy_set).allowed
