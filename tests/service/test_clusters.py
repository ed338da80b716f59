"""What people ask about, from the log to names and sizes."""

from pathlib import Path

import pytest

from service.clusters import Clusters
from store.records import Feedback, FeedbackSource, Rating
from tests.service.asking_room import Room


@pytest.fixture
def room(tmp_path: Path) -> Room:
    room = Room(tmp_path)
    yield room
    room.db.close()


def clusters(room: Room) -> Clusters:
    scoring = room.scoring()
    while scoring.score_new():
        pass
    return Clusters(room.interactions, room.pool)


def test_questions_of_two_kinds_make_two_clusters_with_names(room):
    for number in range(10):
        room.add(f"c{number}", f"which capital city has country{number}", uncertainty=2.0)
    for number in range(30):
        room.add(f"s{number}", f"sort these numbers upwards list{number}", uncertainty=1.0)
    sort, capital = clusters(room).found(2)
    assert (sort.size, capital.size) == (30, 10)
    assert "sort" in sort.name
    assert "capital" in capital.name
    assert (sort.uncertainty, capital.uncertainty) == (1.0, 2.0)
    assert sort.drift == pytest.approx(1 - 22 / 32)
    assert clusters(room).found(2) == [sort, capital]


def test_the_error_of_a_cluster_is_what_people_judged_of_it_by_their_last_word(room):
    for number in range(6):
        room.add(f"a{number}")
    words = [("a0", Rating.UP, None), ("a0", Rating.DOWN, None), ("a1", None, "So."), ("a2", Rating.UP, None)]
    words.append(("a3", None, None))  # a remark judges nothing
    for number, (interaction, rating, correction) in enumerate(words):
        word = Feedback(f"f{number}", interaction, float(number), "ann", FeedbackSource.FEEDBACK, rating, correction)
        room.interactions.add_feedback(word)
    (only,) = clusters(room).found(1)
    assert (only.num_judged, only.error) == (3, pytest.approx(2 / 3))


def test_a_few_questions_are_one_cluster_and_none_are_none(room):
    assert clusters(room).found(20) == []
    for number in range(4):
        room.add(f"a{number}")
    (only,) = clusters(room).found(20)
    assert only.size == 4


def test_answers_without_tokens_are_counted_without_doubt(room):
    for number in range(3):
        room.add(f"a{number}", uncertainty=None)
    assert [one.uncertainty for one in clusters(room).found(3)] == [None]


def test_the_operator_sees_them(desk):
    assert desk.operator.get("/operator/clusters").json() == {"clusters": []}
    desk.ask("what is there to see")
    desk.daemon.rounds.score()
    (found,) = desk.operator.get("/operator/clusters?count=3").json()["clusters"]
    assert (found["size"], found["drift"]) == (1, 0.0)
    for count in ("0", "201", "many"):
        assert desk.operator.get(f"/operator/clusters?count={count}").status_code == 400
