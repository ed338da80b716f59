"""Which of two answers is better: appended, the last word stands, and only answers to one question are compared."""

import pytest

from store.comparisons import Choice, Comparisons, NotComparable
from store.database import Database
from store.interactions import Interactions, UnknownInteraction
from store.labels import AlreadyAsked, Labels
from store.records import LabelState


@pytest.fixture
def comparisons(log: Database, make) -> Comparisons:
    interactions = Interactions(log)
    for name, reply in (("i0", "One."), ("i1", "Two."), ("i2", "Three.")):
        interactions.append(make.interaction(name, reply=reply))
    interactions.append(make.interaction("same", reply="Two."))
    interactions.append(make.interaction("else", messages=({"role": "user", "content": "Wer?"},)))
    return Comparisons(log)


def test_a_comparison_comes_back_as_it_was_given(comparisons: Comparisons, make) -> None:
    comparisons.add(make.comparison(choice=Choice.NEITHER))
    assert comparisons.standing() == [make.comparison(choice=Choice.NEITHER)]
    assert comparisons.count() == 1


def test_each_persons_last_word_on_a_pair_stands_whichever_way_round(comparisons: Comparisons, make) -> None:
    for name, first, second, principal in (
        ("c1", "i1", "i0", "ann"),
        ("c2", "i0", "i1", "ann"),
        ("c3", "i0", "i1", "bob"),
        ("c4", "i0", "i2", "ann"),
    ):
        comparisons.add(make.comparison(name, first, second, principal=principal))
    assert [comparison.id for comparison in comparisons.standing()] == ["c2", "c3", "c4"]


@pytest.mark.parametrize("second", ["same", "else", "i1"])
def test_only_different_answers_to_one_question_are_compared(comparisons: Comparisons, make, second: str) -> None:
    with pytest.raises(NotComparable, match="not two different answers to one question"):
        comparisons.add(make.comparison(second_id=second))
    assert comparisons.count() == 0


def test_an_answer_that_was_never_given_is_not_compared(comparisons: Comparisons, make) -> None:
    with pytest.raises(UnknownInteraction, match="no interaction nobody"):
        comparisons.add(make.comparison(second_id="nobody"))


def test_a_question_about_two_answers_is_resolved_with_the_comparison_or_not_at_all(
    comparisons: Comparisons, log: Database, make
) -> None:
    labels = Labels(log)
    labels.add(make.task(other_id="i0"))
    with pytest.raises(ValueError, match="does not answer label task t1"):
        labels.resolve("t1", LabelState.COMPARED, 160.0, make.comparison(second_id="i2"))
    assert labels.get("t1").state is LabelState.OPEN
    labels.resolve("t1", LabelState.COMPARED, 160.0, make.comparison())
    assert labels.get("t1") == make.task(other_id="i0", state=LabelState.COMPARED, resolved_at=160.0)
    assert comparisons.count() == 1


def test_neither_answer_of_a_question_is_asked_about_again(comparisons: Comparisons, log: Database, make) -> None:
    labels = Labels(log)
    labels.add(make.task(other_id="i0"))
    for name in ("i0", "i1"):
        with pytest.raises(AlreadyAsked):
            labels.add(make.task("t2", name))
        assert labels.for_interaction(name).id == "t1"
    with pytest.raises(AlreadyAsked):
        labels.add(make.task("t2", "i2", other_id="i0"))


def test_the_other_answer_is_of_the_same_checkpoint_whole_and_different(
    comparisons: Comparisons, log: Database, make
) -> None:
    interactions = Interactions(log)
    interactions.append(make.interaction("cut", reply="Four.", finish_reason="length"))
    interactions.append(make.interaction("later", reply="Five.", checkpoint_id="other"))
    interactions.append(make.interaction("empty", reply=" "))
    assert comparisons.other_answer(interactions.get("i0")) == "same"
    assert comparisons.other_answer(interactions.get("i1")) == "i2"
    assert comparisons.other_answer(interactions.get("else")) is None
