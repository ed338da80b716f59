"""From new interactions to vectors, scores and places in the pool."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.scoring import BATCH, Scoring, question_key
from store.records import FinishReason, TokenTrace
from store.vectors import VectorIndex
from tests.fakes import WordEmbedder
from tests.service.asking_room import Room


@pytest.fixture
def room(tmp_path: Path) -> Room:
    room = Room(tmp_path)
    yield room
    room.db.close()


def scored(room: Room) -> list[str]:
    return [id_ for ids, _ in room.interactions.vectors(WordEmbedder.dim) for id_ in ids]


def test_each_whole_answer_is_scored_once(room):
    for name in ("one", "two"):
        room.add(name)
    scoring = room.scoring()
    assert (scoring.score_new(), scoring.score_new()) == (2, 0)
    assert scored(room) == ["one", "two"]
    assert len(scoring.index) == 2
    assert room.pool.columns().is_open.tolist() == [True, True]


def test_a_backlog_is_scored_in_batches_oldest_first(room):
    for number in range(BATCH + 3):
        room.add(f"i{number:03d}")
    scoring = room.scoring()
    assert scoring.score_new() == BATCH
    assert scored(room)[-1] == f"i{BATCH - 1:03d}"
    assert scoring.score_new() == 3


@pytest.mark.parametrize("reason", [FinishReason.DISCONNECT, FinishReason.ERROR])
def test_a_cut_off_answer_is_not_scored(room, reason):
    room.add("cut", finish_reason=reason)
    assert room.scoring().score_new() == 0


def test_the_same_question_again_is_not_new_and_scores_follow_the_uncertainty(room):
    for name, uncertainty in (("first", 1.0), ("second", 2.0), ("third", 0.5)):
        room.add(name, "the very same", uncertainty=uncertainty)
    room.add("silent", "something else", uncertainty=None)
    room.scoring().score_new()
    with room.db.read() as db:
        rows = db.execute("SELECT interaction_id, novelty, score FROM embeddings").fetchall()
    found = {name: (novelty, score) for name, novelty, score in rows}
    assert found["first"][0] == 1.0
    assert found["second"][0] == pytest.approx(0.0, abs=1e-5)
    assert found["second"][1] > found["third"][1] > found["silent"][1] == 0.0


def test_answers_are_ranked_by_the_signal_that_is_set(room):
    room.add("short and unsure", "one thing", tokens=(TokenTrace(1, -5.0, 5.0),))
    room.add("long and sure", "another thing", tokens=(TokenTrace(1, -0.1, 0.1),) * 9)
    room.scoring(by="length").score_new()
    assert room.pool.recent_uncertainties("base", 2) == [9.0, 1.0]


def test_after_a_change_of_signal_answers_from_before_are_ranked_by_the_new_one(room):
    room.add("short and unsure", "one thing", tokens=(TokenTrace(1, -5.0, 5.0),))
    room.add("long and sure", "another thing", tokens=(TokenTrace(1, -0.1, 0.1),) * 9)
    room.scoring(by="mean_entropy").score_new()
    room.add("later", "a third thing", tokens=(TokenTrace(1, -1.0, 1.0),) * 3)
    room.scoring(by="length").score_new()
    assert room.pool.recent_uncertainties("base", 3) == [3.0, 9.0, 1.0]
    assert room.pool.keep_to("length", len) == 0


def test_a_question_is_the_same_whatever_its_case_and_spacing_and_not_in_another_conversation(room):
    texts = ("What is IT?", "  what is\nit? ", "What was it?")
    for number, text in enumerate(texts):
        room.add(f"q{number}", text)
    before = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
    room.add("later", messages=(*before, {"role": "user", "content": texts[0]}))
    keys = [question_key(room.interactions.get(name)) for name in ("q0", "q1", "q2", "later")]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"nonsense")])
def test_a_lost_or_damaged_index_is_made_again_from_the_rows(room, spoil: Callable[[Path], object]):
    for name in ("one", "two"):
        room.add(name)
    room.scoring().score_new()
    for path in room.state.glob("vectors.*"):
        spoil(path)
    scoring = room.scoring()
    assert len(scoring.index) == 2
    room.add("three")
    assert scoring.score_new() == 1


def test_rows_scored_since_the_last_save_are_in_the_index_after_a_restart(room):
    for number in range(40):
        room.add(f"i{number}")
    room.scoring().score_new()
    saved = (room.state / "vectors.faiss").read_bytes()
    room.add("one more")
    room.scoring().score_new()
    assert (room.state / "vectors.faiss").read_bytes() == saved
    assert len(room.scoring().index) == 41


def test_an_index_that_is_outgrown_is_rebuilt_as_lists(room):
    index = VectorIndex(room.state / "vectors.faiss", WordEmbedder.dim, flat_rows=100)
    scoring = Scoring(
        interactions=room.interactions,
        pool=room.pool,
        index=index,
        embedder=room.embedder,
        signal_name="mean_entropy",
        clock=room.clock,
    )
    for number in range(2 * BATCH):
        room.add(f"i{number}")
    assert (scoring.score_new(), index.is_exact) == (BATCH, True)
    assert (scoring.score_new(), index.is_exact) == (BATCH, False)
    assert np.isfinite(index.neighbours(room.embedder.embed(["What is i7?"]), 3)).all()


def test_a_daemon_scores_with_a_local_embedder_and_its_pooling(shared_desk):
    """The embedder's folders come with it: without its pooling it has no vectors."""
    shared_desk.ask("something to score")
    shared_desk.daemon.rounds.score()
    ((ids, vectors),) = shared_desk.daemon.stores.interactions.vectors(16)
    assert vectors.shape == (len(ids), 16)
    assert ids
