"""What may be trained on: each rule of `learn`, `prefer` and `hold` blocks by itself."""

from dataclasses import replace

import pytest

from policies.admission import LearnFacts, PreferFacts, may_hold, may_learn, may_prefer
from policies.engine import PolicySet
from store.records import Feedback, FeedbackSource, FinishReason, Interaction, Rating

CORRECTED = Feedback(
    id="f1",
    interaction_id="i1",
    created_at=1.0,
    principal="mallory",
    source=FeedbackSource.FEEDBACK,
    rating=Rating.DOWN,
    correction="Canberra",
)
FACTS = LearnFacts(feedback=CORRECTED, texts=("What is the capital?",), num_taken=0, max_length=20, principal_cap=2)


@pytest.mark.parametrize("source", list(FeedbackSource))
def test_a_correction_is_learnt_wherever_it_was_given(policy_set, ids, source):
    ruling = may_learn(replace(FACTS, feedback=replace(CORRECTED, source=source)), policy_set)
    assert ruling.allowed
    assert ids(ruling) == ["learn.corrected"]


@pytest.mark.parametrize(
    ("feedback", "rule"),
    [
        ({"is_excluded": True}, "learn.excluded"),
        ({"correction": None}, "learn.no_correction"),
        ({"correction": None, "rating": Rating.UP}, "learn.no_correction"),
        ({"correction": ""}, "learn.empty_correction"),
        ({"correction": " \n"}, "learn.empty_correction"),
        ({"correction": "x" * 21}, "learn.too_long"),
        ({"correction": "AKIAIOSFODNN7EXAMPLE"}, "learn.secret"),
        ({"correction": "ann.lee@example.org"}, "learn.personal"),
    ],
)
def test_each_rule_keeps_a_row_out(policy_set, ids, feedback, rule):
    ruling = may_learn(replace(FACTS, feedback=replace(CORRECTED, **feedback)), policy_set)
    assert not ruling.allowed
    assert ids(ruling) == [rule]


def test_what_was_asked_is_looked_at_too(policy_set, ids):
    ruling = may_learn(replace(FACTS, texts=("Hi", "Whose is 555-867-5309?")), policy_set)
    assert (ruling.allowed, ids(ruling)) == (False, ["learn.personal"])


def test_one_person_fills_no_more_than_their_share(policy_set, ids):
    taken = [may_learn(replace(FACTS, num_taken=n), policy_set) for n in range(4)]
    assert [ruling.allowed for ruling in taken] == [True, True, False, False]
    assert ids(taken[2]) == ["learn.over_cap"]


def test_a_length_at_the_limit_is_admitted(policy_set):
    assert may_learn(replace(FACTS, feedback=replace(CORRECTED, correction="x" * 20)), policy_set).allowed


def test_a_site_can_keep_out_one_person_with_a_rule_of_its_own():
    schema = """entity Person; entity Feedback; action "learn" appliesTo { principal: [Person], resource: [Feedback],
      context: { is_excluded: Bool, correction_length?: Long, max_length: Long,
      holds_secret: Bool, holds_personal_data: Bool,
      num_taken: Long, principal_cap: Long } };"""
    rules = """@id("any") @reason("all") permit (principal, action == Action::"learn", resource);
      @id("banned") @reason("not from them") forbid (principal == Person::"mallory", action, resource);"""
    site = PolicySet.parse(rules, schema)
    assert not may_learn(FACTS, site).allowed
    assert may_learn(replace(FACTS, feedback=replace(CORRECTED, principal="ann")), site).allowed


JUDGED = PreferFacts(
    id="c1",
    principal="mallory",
    texts=("What is the capital?",),
    answers=("Canberra.", "Sydney."),
    is_same=False,
    is_complete=True,
    is_excluded=False,
    num_taken=0,
    max_length=20,
    principal_cap=2,
)


def test_a_judgement_may_be_learnt(policy_set, ids):
    ruling = may_prefer(JUDGED, policy_set)
    assert (ruling.allowed, ids(ruling)) == (True, ["prefer.judged"])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"is_excluded": True}, "prefer.excluded"),
        ({"is_complete": False}, "prefer.incomplete"),
        ({"is_same": True}, "prefer.same"),
        ({"answers": ("Canberra.", " \n")}, "prefer.empty"),
        ({"answers": ()}, "prefer.empty"),
        ({"answers": ("x" * 21, "y")}, "prefer.too_long"),
        ({"answers": ("Canberra.", "AKIAIOSFODNN7EXAMPLE")}, "prefer.secret"),
        ({"answers": ("ann.lee@example.org",)}, "prefer.personal"),
        ({"texts": ("Whose is 555-867-5309?",)}, "prefer.personal"),
        ({"num_taken": 2}, "prefer.over_cap"),
    ],
)
def test_each_rule_keeps_a_judgement_out(policy_set, ids, changes, rule):
    ruling = may_prefer(replace(JUDGED, **changes), policy_set)
    assert (ruling.allowed, ids(ruling)) == (False, [rule])


SURE = Interaction(
    "i1", "c1", 1.0, "ann", "base", ({"role": "user", "content": "Hi?"},), "Hello!", FinishReason.STOP, (), 9, 0.1, 0.2
)


def test_the_model_may_be_held_to_what_it_is_sure_of(policy_set, ids):
    ruling = may_hold(SURE, policy_set)
    assert (ruling.allowed, ids(ruling)) == (True, ["hold.sure"])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"reply": "AKIAIOSFODNN7EXAMPLE"}, "hold.secret"),
        ({"messages": ({"role": "user", "content": "Whose is 555-867-5309?"},)}, "hold.personal"),
        ({"prompt_tokens": 513}, "hold.too_long"),
    ],
)
def test_each_rule_keeps_an_answer_of_the_model_out(policy_set, ids, changes, rule):
    ruling = may_hold(replace(SURE, **changes), policy_set)
    assert (ruling.allowed, ids(ruling)) == (False, [rule])
