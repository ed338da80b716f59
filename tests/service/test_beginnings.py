"""The operator's doors take the beginning of an id where only one begins so; the public one takes whole ids only."""

import pytest

from store.records import LabelState, LabelTask
from tests.service.conftest import post

QUESTIONS = ("aaaa1111-question", "aaaa2222-question")


@pytest.fixture
def turns(desk) -> list[str]:
    """Two answers with a question about each."""
    found = [desk.ask(text)["honed"]["interaction_id"] for text in ("one", "two")]
    for id_, interaction_id in zip(QUESTIONS, found, strict=True):
        desk.daemon.stores.labels.add(LabelTask(id_, interaction_id, 1.0, 0.9, "less sure than most"))
    return found


def settle(desk, beginning: str, action: str = "right"):
    return post(desk.operator, f"/operator/questions/{beginning}", {"action": action})


def test_a_question_is_settled_by_the_beginning_of_its_id(desk, turns):
    assert settle(desk, "aaaa2").json() == {"id": QUESTIONS[1], "state": "right"}
    assert [desk.daemon.stores.labels.get(id_).state for id_ in QUESTIONS] == [LabelState.OPEN, LabelState.RIGHT]
    assert settle(desk, "aaaa2").status_code == 409


@pytest.mark.parametrize(
    ("beginning", "why"),
    [
        ("aaaa", "could be any of aaaa1111-question, aaaa2222-question"),
        ("aaa", "at least 4 characters"),
        ("aaaa3", "no label task aaaa3"),
    ],
)
def test_a_question_that_could_be_several_or_none_is_not_settled(desk, turns, beginning, why):
    response = settle(desk, beginning)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "question_not_found")
    assert why in response.json()["error"]["message"]
    assert {desk.daemon.stores.labels.get(id_).state for id_ in QUESTIONS} == {LabelState.OPEN}


def test_what_was_said_is_explained_by_the_beginning_of_either_id(desk, turns):
    said = post(desk.public, "/v1/feedback", {"interaction_id": turns[0], "correction": "The code is 7714."}).json()
    for whole in (turns[0], said["id"]):
        told = desk.operator.get(f"/operator/data/{whole[:12]}")
        assert (told.status_code, told.json()["feedback"]) == (200, said["id"])
    for beginning in (turns[0][:3], turns[1][:12], "never-was"):
        told = desk.operator.get(f"/operator/data/{beginning}")
        assert (told.status_code, told.json()["error"]["code"]) == (404, "nothing_said")


def test_callers_cannot_try_beginnings(desk, turns):
    for door in (desk.public, desk.operator):
        response = post(door, "/v1/feedback", {"interaction_id": turns[0][:31], "rating": "up"})
        assert response.status_code == 404
    assert desk.daemon.stores.interactions.feedback_for(turns[0]) == []
