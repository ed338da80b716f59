"""The label queue: asked once, answered once."""

import threading

import pytest

from store.database import StoreError
from store.interactions import Interactions, UnknownInteraction
from store.labels import AlreadyAsked, Labels, NotOpen, UnknownLabelTask
from store.records import LabelState


@pytest.fixture(autouse=True)
def three_interactions(interactions: Interactions, make) -> None:
    for n in (1, 2, 3):
        interactions.append(make.interaction(f"i{n}"))


def test_a_task_comes_back_as_it_went_in(labels: Labels, make) -> None:
    labels.add(make.task())
    assert labels.get("t1") == make.task()
    assert labels.for_interaction("i1") == make.task()
    assert labels.get("t9") is None
    assert labels.for_interaction("i9") is None


def test_a_task_is_found_by_the_beginning_of_its_id_that_no_other_shares(labels: Labels, make) -> None:
    labels.add(make.task("task-1a", "i1"))
    labels.add(make.task("task-2b", "i2"))
    assert labels.get("task-2").interaction_id == "i2"
    assert labels.get("task-3") is None
    with pytest.raises(StoreError, match="task-1a, task-2b; give more characters"):
        labels.get("task-")
    with pytest.raises(StoreError, match="at least 4 characters"):
        labels.get("tas")


def test_open_tasks_come_highest_score_first(labels: Labels, make) -> None:
    for n, score in ((1, 0.2), (2, 0.9), (3, 0.5)):
        labels.add(make.task(f"t{n}", f"i{n}", score=score))
    assert [task.id for task in labels.open_tasks(2)] == ["t2", "t3"]


def test_an_interaction_is_asked_about_once_even_after_the_answer(labels: Labels, make) -> None:
    labels.add(make.task())
    labels.resolve("t1", LabelState.SKIPPED, 160.0)
    with pytest.raises(AlreadyAsked, match="i1"):
        labels.add(make.task("t2", "i1"))


def test_a_task_needs_its_interaction(labels: Labels, make) -> None:
    with pytest.raises(UnknownInteraction, match="i9"):
        labels.add(make.task("t9", "i9"))


@pytest.mark.parametrize("state", [state for state in LabelState if state is not LabelState.OPEN])
def test_resolving_keeps_state_and_time(labels: Labels, make, state: LabelState) -> None:
    labels.add(make.task())
    resolved = labels.resolve("t1", state, 160.0)
    assert (resolved.state, resolved.resolved_at) == (state, 160.0)
    assert labels.get("t1") == resolved
    assert labels.open_tasks(9) == []
    assert labels.count_open() == 0


def test_the_answer_and_the_end_of_the_question_are_one(labels: Labels, interactions: Interactions, make) -> None:
    labels.add(make.task())
    with pytest.raises(ValueError, match="does not answer label task t1"):
        labels.resolve("t1", LabelState.ANSWERED, 160.0, make.feedback("f1", "i2"))
    assert labels.get("t1").state is LabelState.OPEN
    assert interactions.count_feedback() == 0
    labels.resolve("t1", LabelState.ANSWERED, 160.0, make.feedback("f1", "i1"))
    with pytest.raises(NotOpen):
        labels.resolve("t1", LabelState.ANSWERED, 170.0, make.feedback("f2", "i1"))
    assert [said.id for said in interactions.feedback_for("i1")] == ["f1"]


def test_a_resolved_task_is_not_resolved_again_and_its_state_is_named(labels: Labels, make) -> None:
    labels.add(make.task())
    labels.resolve("t1", LabelState.RIGHT, 160.0)
    with pytest.raises(NotOpen, match="right already") as caught:
        labels.resolve("t1", LabelState.EXCLUDED, 170.0)
    assert caught.value.state is LabelState.RIGHT
    assert isinstance(caught.value, StoreError)


def test_of_many_people_answering_at_once_one_gets_through(labels: Labels, make) -> None:
    labels.add(make.task())
    through: list[bool] = []

    def answer() -> None:
        try:
            labels.resolve("t1", LabelState.ANSWERED, 160.0)
            through.append(True)
        except NotOpen:
            through.append(False)

    threads = [threading.Thread(target=answer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(through) == [False] * 7 + [True]


def test_unknown_tasks_and_senseless_states_are_refused(labels: Labels) -> None:
    with pytest.raises(UnknownLabelTask, match="t9"):
        labels.resolve("t9", LabelState.RIGHT, 160.0)
    with pytest.raises(ValueError, match="not to open"):
        labels.resolve("t9", LabelState.OPEN, 160.0)


def test_counts_follow_the_queue(labels: Labels, make) -> None:
    for n in (1, 2, 3):
        labels.add(make.task(f"t{n}", f"i{n}", created_at=100.0 * n))
    labels.resolve("t3", LabelState.RIGHT, 400.0)
    assert labels.count_open() == 2
    assert labels.count_added_since(200.0) == 2
    assert labels.count_added_since(300.5) == 0
