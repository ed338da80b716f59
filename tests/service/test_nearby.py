"""What was asked near what a candidate was taught, and was never taught."""

from pathlib import Path

import pytest

from agent.scope import scope_of
from service.nearby import MAX_ITEMS, Nearby
from tests.service.asking_room import Room

TAUGHT = "who leads the marsk choir"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def nearby(room: Room, *questions: str) -> list[str]:
    """What is found of a log in which these were asked, in turn."""
    for number, question in enumerate(questions):
        room.add(str(number), question)
    scoring = room.scoring()
    while scoring.score_new():
        pass
    scope = scope_of([TAUGHT], room.embedder, "e", 0.5)
    return [one.question for one in Nearby(room.interactions, lambda: scoring.index).found(scope, {TAUGHT})]


def test_what_is_inside_is_found_the_nearest_first_and_what_is_far_is_not(room: Room) -> None:
    far, near, nearer = "how is the weather", "who leads the band", "who leads the elsing choir"
    assert nearby(room, far, near, nearer) == [nearer, near]


def test_what_was_taught_is_not_near_itself_in_any_spelling(room: Room) -> None:
    assert nearby(room, TAUGHT, f"{TAUGHT} ?", "marsk choir the leads who") == []


def test_a_question_that_was_asked_often_is_found_once(room: Room) -> None:
    often = "who leads the elsing choir"
    assert nearby(room, often, "who leads the band", often, often) == [often, "who leads the band"]


def test_no_more_are_found_than_people_would_look_at(room: Room) -> None:
    many = [f"who leads the marsk choir in year {number}" for number in range(60)]
    assert 0 < len(nearby(room, *many)) <= MAX_ITEMS


def test_an_empty_log_has_nothing_near(room: Room) -> None:
    assert nearby(room) == []
