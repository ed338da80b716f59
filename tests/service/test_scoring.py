"""From new interactions to vectors, scores and places in the pool."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

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


class Reordered(WordEmbedder):
    """Another one of the same width."""

    def embed(self, texts):
        return super().embed(texts)[:, ::-1].copy()


class Wider(WordEmbedder):
    dim = 48


@pytest.mark.parametrize("other", [Reordered, Wider])
def test_after_a_change_of_embedder_every_question_is_embedded_and_scored_anew(room, other: type[WordEmbedder]):
    for number in range(3):
        room.add(f"i{number}")
    room.scoring().score_new()
    room.embedder = other()
    with capture_logs() as logs:
        scoring = room.scoring()
    (told,) = (line for line in logs if line["event"] == "vectors.dropped")
    assert (told["num_answers"], len(scoring.index)) == (3, 0)
    assert "embedded and scored anew" in told["reason"]
    room.add("later")
    assert scoring.score_new() == 4
    assert len(room.pool.columns().seq) == 4
    for name in ("i0", "later"):
        (vector,) = room.embedder.embed([room.interactions.get(name).question])
        assert scoring.index.search(vector, 1) == [(name, pytest.approx(1.0, abs=1e-5))]


def test_vectors_of_two_embedders_that_were_mixed_before_are_made_anew(room):
    for number in range(9):
        room.add(f"i{number}")
        room.embedder = Reordered() if number else WordEmbedder()
        vector = room.embedder.embed([room.interactions.get(f"i{number}").question])[0]
        room.interactions.add_score(f"i{number}", vector, 0.5, 0.5, 1.0, question=number, uncertainty=1.0)
    assert room.scoring().score_new() == 9


def test_the_same_embedder_on_a_machine_that_rounds_otherwise_keeps_its_vectors(room):
    class Rounded(WordEmbedder):
        def embed(self, texts):
            return super().embed(texts).astype(np.float16).astype(np.float32)

    room.add("one")
    room.scoring().score_new()
    room.embedder = Rounded()
    assert len(room.scoring().index) == 1


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
