"""From new interactions to vectors, scores and the questions worth asking."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.embedding import SentenceEmbedder
from policies.engine import shipped
from service.certainty import Certainty
from service.scoring import BATCH, Scoring
from store import migrations
from store.comparisons import Comparisons
from store.database import Database
from store.interactions import Interactions
from store.labels import Labels
from store.records import Feedback, FeedbackSource, FinishReason, Interaction
from store.vectors import VectorIndex
from tests.fakes import SetClock

DAY = 86_400.0


class Room:
    """A log, an index and a scorer over them, with a clock to set."""

    def __init__(self, state: Path, embedder: SentenceEmbedder) -> None:
        self.state, self.embedder, self.clock = state, embedder, SetClock()
        self.db = Database(state / "honed.db", migrations.log)
        self.interactions, self.labels = Interactions(self.db), Labels(self.db)

    def scoring(self, *, threshold: float = 0.0, per_day: int = 100) -> Scoring:
        self.index = VectorIndex(self.state / "vectors.faiss", self.embedder.dim)
        return Scoring(
            interactions=self.interactions,
            labels=self.labels,
            comparisons=Comparisons(self.db),
            index=self.index,
            embedder=self.embedder,
            certainty=Certainty(self.interactions),
            policy_set=shipped(),
            ask_threshold=threshold,
            ask_per_day=per_day,
            clock=self.clock,
        )

    def add(self, name: str, **changes: object) -> None:
        values = {
            "conversation_id": name,
            "created_at": 1.0,
            "principal": "ann",
            "checkpoint_id": "base",
            "messages": ({"role": "user", "content": f"What is {name}?"},),
            "reply": "An answer.",
            "finish_reason": FinishReason.STOP,
            "tokens": (),
            "prompt_tokens": 5,
            "latency_seconds": 0.1,
            "uncertainty": 1.0,
        }
        self.interactions.append(Interaction(name, **(values | changes)))

    def asked(self) -> set[str]:
        return {task.interaction_id for task in self.labels.open_tasks(1_000)}


@pytest.fixture(scope="module")
def embedder(tiny_embedder: Path) -> SentenceEmbedder:
    return SentenceEmbedder(tiny_embedder)


@pytest.fixture
def room(tmp_path: Path, embedder: SentenceEmbedder) -> Room:
    room = Room(tmp_path, embedder)
    yield room
    room.db.close()


def test_each_whole_answer_is_scored_once(room):
    for name in ("one", "two"):
        room.add(name)
    scoring = room.scoring()
    assert (scoring.score_new(), scoring.score_new()) == (2, 0)
    ids, vectors = room.interactions.vectors()
    assert (ids, vectors.shape) == (["one", "two"], (2, room.embedder.dim))
    assert room.asked() == {"one", "two"}
    assert len(room.index) == 2


def test_a_backlog_is_scored_in_batches_oldest_first(room):
    for number in range(BATCH + 3):
        room.add(f"i{number:03d}")
    scoring = room.scoring()
    assert scoring.score_new() == BATCH
    assert room.interactions.vectors()[0][-1] == f"i{BATCH - 1:03d}"
    assert scoring.score_new() == 3


@pytest.mark.parametrize("reason", [FinishReason.DISCONNECT, FinishReason.ERROR])
def test_a_cut_off_answer_is_neither_scored_nor_asked_about(room, reason):
    room.add("cut", finish_reason=reason)
    assert room.scoring().score_new() == 0
    assert room.asked() == set()


@pytest.mark.parametrize("reply", ["", "  \n"])
def test_an_empty_answer_is_scored_and_not_asked_about(room, reply):
    room.add("empty", reply=reply, uncertainty=None if not reply else 2.0)
    assert room.scoring().score_new() == 1
    assert room.asked() == set()


def test_the_unsure_and_the_new_are_asked_about_the_sure_and_the_known_are_not(room):
    for number in range(8):
        room.add(f"known {number}", uncertainty=0.1, messages=({"role": "user", "content": "Hello there"},))
    room.scoring(per_day=0).score_new()
    room.add("unsure", uncertainty=5.0)
    room.add("sure", uncertainty=0.05, messages=({"role": "user", "content": "Hello there"},))
    room.scoring(threshold=0.6).score_new()
    assert room.asked() == {"unsure"}
    (task,) = room.labels.open_tasks(5)
    assert "5.00 nats" in task.reason


def test_a_day_has_so_many_questions_and_the_next_day_has_them_again(room):
    for number in range(5):
        room.add(f"today {number}")
    room.scoring(per_day=2).score_new()
    assert len(room.asked()) == 2
    room.clock.now += DAY - 1
    room.add("late")
    room.scoring(per_day=2).score_new()
    assert len(room.asked()) == 2
    room.clock.now += 2
    room.add("tomorrow")
    room.scoring(per_day=2).score_new()
    assert "tomorrow" in room.asked()


def test_without_a_budget_nothing_is_asked(room):
    room.add("one")
    room.scoring(per_day=0).score_new()
    assert room.asked() == set()


def test_what_a_person_judged_already_is_not_asked_about(room):
    room.add("judged")
    room.interactions.add_feedback(Feedback("f", "judged", 2.0, "ann", FeedbackSource.FEEDBACK, comment="fine"))
    assert room.scoring().score_new() == 1
    assert room.asked() == set()


def test_the_same_question_again_is_not_new(room):
    for name in ("first", "second"):
        room.add(name, messages=({"role": "user", "content": "The very same"},))
    room.scoring().score_new()
    with room.db.read() as db:
        novelty = dict(db.execute("SELECT interaction_id, novelty FROM embeddings").fetchall())
    assert novelty["first"] == 1.0
    assert novelty["second"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"nonsense")])
def test_a_lost_or_damaged_index_is_made_again_from_the_rows(room, spoil: Callable[[Path], object]):
    for name in ("one", "two"):
        room.add(name)
    room.scoring().score_new()
    for path in room.state.glob("vectors.*"):
        spoil(path)
    room.scoring()
    assert len(room.index) == 2
    room.add("three")
    assert room.scoring().score_new() == 1


def test_a_daemon_scores_with_a_local_embedder_and_its_pooling(shared_desk):
    """The embedder's folders come with it: without its pooling it has no vectors."""
    shared_desk.ask("something to score")
    shared_desk.daemon.rounds.score()
    assert shared_desk.daemon.stores.interactions.vectors()[1].shape[1] == 16


def test_two_answers_to_one_question_are_asked_about_together_and_once(room: Room) -> None:
    asked = ({"role": "user", "content": "What is a boat?"},)
    for number, reply in enumerate(("A ship.", "A small ship.", "A ship.")):
        room.add(f"boat-{number}", conversation_id="boats", messages=asked, reply=reply)
    room.add("elsewhere", conversation_id="boats", messages=asked, reply="Wood.", checkpoint_id="other")
    room.scoring().score_new()
    tasks = {task.interaction_id: task.other_id for task in room.labels.open_tasks(10)}
    assert tasks["boat-0"] == "boat-1"
    assert "boat-1" not in tasks
    assert tasks["boat-2"] is None
    assert tasks["elsewhere"] is None


def test_an_answer_that_was_cut_off_is_not_compared(room: Room) -> None:
    asked = ({"role": "user", "content": "What is a boat?"},)
    for number, (reply, reason) in enumerate((("A ship.", FinishReason.LENGTH), ("Wood.", FinishReason.STOP))):
        room.add(f"boat-{number}", conversation_id="boats", messages=asked, reply=reply, finish_reason=reason)
    room.scoring().score_new()
    assert {task.other_id for task in room.labels.open_tasks(10)} == {None}
