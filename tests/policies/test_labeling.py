"""Who gets asked what: each rule of `ask` blocks by itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.labeling import AskFacts, should_ask
from store.records import Arm, Outcome

UNSURE = AskFacts(
    interaction_id="i1",
    arm=Arm.DENSE_UNCERTAIN,
    score=0.8,
    threshold=0.5,
    asked_today=0,
    daily_budget=5,
    asked_person_today=0,
    person_budget=3,
    is_asked=False,
    is_complete=True,
    is_empty=False,
)


def test_an_unsure_answer_is_asked_about(policy_set, ids):
    ruling = should_ask(UNSURE, policy_set)
    assert ruling.allowed
    assert ids(ruling) == ["ask.surest_need"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"asked_today": 5}, "ask.over_budget"),
        ({"daily_budget": 0}, "ask.over_budget"),
        ({"asked_person_today": 3}, "ask.over_person_budget"),
        ({"person_budget": 0}, "ask.over_person_budget"),
        ({"arm": "by ear"}, "ask.unknown_arm"),
        ({"score": 0.49}, "ask.below_threshold"),
        ({"score": None}, "ask.no_score"),
        ({"score": float("nan")}, "ask.no_score"),
        ({"score": float("inf")}, "ask.no_score"),
        ({"is_asked": True}, "ask.already_asked"),
        ({"is_complete": False}, "ask.incomplete"),
        ({"is_empty": True}, "ask.empty_reply"),
    ],
)
def test_each_rule_keeps_a_question_from_being_asked(policy_set, ids, changes, rule):
    ruling = should_ask(replace(UNSURE, **changes), policy_set)
    assert not ruling.allowed
    assert ids(ruling) == [rule]


def test_a_missing_score_is_inconclusive_and_a_low_one_is_a_no(policy_set):
    assert should_ask(replace(UNSURE, score=None), policy_set).outcome is Outcome.INCONCLUSIVE
    assert should_ask(replace(UNSURE, score=0.1), policy_set).outcome is Outcome.FAIL


@pytest.mark.parametrize("arm", [Arm.WARM_UP, Arm.RANDOM])
def test_the_threshold_is_for_what_was_chosen_by_its_score(policy_set, ids, arm):
    assert should_ask(replace(UNSURE, arm=arm, score=0.1), policy_set).allowed
    for changes, rule in (({"score": None}, "ask.no_score"), ({"asked_today": 5}, "ask.over_budget")):
        assert ids(should_ask(replace(UNSURE, arm=arm, **changes), policy_set)) == [rule]


@given(score=st.floats(0, 100), threshold=st.floats(0, 100))
def test_a_score_at_or_above_the_threshold_is_never_held_back(policy_set, score, threshold):
    ruling = should_ask(replace(UNSURE, score=score, threshold=threshold), policy_set)
    if score >= threshold:
        assert ruling.allowed
    elif score < threshold - 1e-5:
        assert not ruling.allowed
