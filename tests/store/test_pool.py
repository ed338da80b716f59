"""The scored answers as columns: what is open, what was taken, and how they are read."""

import numpy as np
import pytest

from store.comparisons import Comparisons
from store.database import Database
from store.interactions import Interactions
from store.labels import Labels
from store.pool import Pool
from store.records import Arm, LabelState


@pytest.fixture
def pool(log: Database, interactions: Interactions, make) -> Pool:
    """Four scored answers and one that waits."""
    people = ["ann", "bob", "ann", "cem", "ann"]
    for n, principal in enumerate(people, 1):
        unsure = None if n == 3 else n / 10
        reply = "" if n == 3 else " \n" if n == 4 else "Honed."
        interactions.append(make.interaction(f"i{n}", principal=principal, uncertainty=unsure, reply=reply))
    for n in (1, 2, 3, 4):
        interactions.add_score(
            f"i{n}", [n, 1.0], 0.5, 0.5, 101.0, question=-(2**63) + n % 2, uncertainty=None if n == 3 else n / 10
        )
    return Pool(log)


@pytest.mark.parametrize("chunk", [1, 3, 50_000])
def test_columns_have_a_place_for_each_scored_answer(pool: Pool, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("store.pool.CHUNK", chunk)
    columns = pool.columns()
    assert columns.seq.tolist() == [1, 2, 3, 4]
    assert np.nan_to_num(columns.uncertainty, nan=-1.0).tolist() == [0.1, 0.2, -1.0, 0.4]
    assert [columns.principals[n] for n in columns.principal] == ["ann", "bob", "ann", "cem"]
    assert [columns.checkpoints[n] for n in columns.checkpoint] == ["base"] * 4
    assert (columns.question == columns.question[[2, 3, 0, 1]]).all()
    assert columns.is_open.tolist() == [True, True, False, False]


def test_what_was_asked_or_judged_is_no_longer_open(
    pool: Pool, interactions: Interactions, labels: Labels, make
) -> None:
    interactions.append(make.interaction("i6"))
    interactions.add_score("i6", [6.0, 1.0], 0.5, 0.5, 101.0, question=-(2**63), uncertainty=0.6)
    labels.add(make.task("t1", "i2"))
    assert pool.columns().is_open.tolist() == [True, False, False, False, False]  # i6 asks what i2 asked
    interactions.add_feedback(make.feedback("f1", "i1"))
    assert not pool.columns().is_open.any()
    assert pool.recently_taken(5) == [1, 2]
    assert pool.recently_taken(1) == [2]


def test_answers_that_were_compared_are_judged_asked_or_not(
    pool: Pool, interactions: Interactions, labels: Labels, log: Database, make
) -> None:
    interactions.append(make.interaction("i6", reply="Another."))
    labels.add(make.task("t1", "i5", other_id="i6"))
    assert [pool.is_taken(f"i{n}") for n in (1, 2, 5, 6)] == [False, False, True, True]
    interactions.append(make.interaction("i7", reply="A third."))
    Comparisons(log).add(make.comparison(first_id="i7", second_id="i1"))
    assert pool.columns().is_open.tolist() == [False, True, False, False]
    assert [pool.is_taken(f"i{n}") for n in (1, 7, 2)] == [True, True, False]
    assert pool.recently_taken(9) == [1, 5, 6, 7]
    interactions.add_feedback(make.feedback("f1", "i2"))
    assert pool.is_taken("i2")


@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_what_is_forgotten_is_scored_again_oldest_first(
    pool: Pool, interactions: Interactions, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("store.pool.VECTOR_CHUNK", chunk)
    assert pool.forget() == 4
    assert (len(pool.columns().seq), pool.dim(), pool.forget()) == (0, None, 0)
    assert [interaction.id for interaction in interactions.unscored(9)] == ["i1", "i2", "i3", "i4", "i5"]


def test_forgetting_that_was_broken_off_leaves_the_oldest(
    pool: Pool, interactions: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.pool.VECTOR_CHUNK", 3)
    monkeypatch.setattr(pool, "_db", Stopped(pool._db))
    with pytest.raises(KeyboardInterrupt):
        pool.forget()
    assert pool.columns().seq.tolist() == [1]
    assert [interaction.id for interaction, _ in interactions.first_and_last_embedded(1)] == ["i1", "i1"]
    assert [interaction.id for interaction in interactions.unscored(9)] == ["i2", "i3", "i4", "i5"]


class Stopped:
    """A database that writes once."""

    def __init__(self, db: Database) -> None:
        self.read, self.chunks, self._write = db.read, db.chunks, db.write
        self._has_written = False

    def write(self, fn):
        if self._has_written:
            raise KeyboardInterrupt
        self._has_written = True
        return self._write(fn)


def test_an_empty_pool_has_empty_columns(log: Database) -> None:
    columns = Pool(log).columns()
    assert (len(columns.seq), columns.principals, columns.is_open.dtype) == (0, (), np.bool_)


def test_vectors_come_in_the_order_asked_for(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.pool.MAX_VARIABLES", 2)
    assert pool.vectors([4, 1, 3], 2).tolist() == [[4.0, 1.0], [1.0, 1.0], [3.0, 1.0]]
    assert pool.vectors([4, 1, 4], 2).tolist() == [[4.0, 1.0], [1.0, 1.0], [4.0, 1.0]]
    assert pool.vectors([1, 5], 2).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert pool.vectors([1], 3).tolist() == [[0.0, 0.0, 0.0]]
    assert pool.vectors([], 2).shape == (0, 2)
    assert pool.ids([4, 1]) == ["i4", "i1"]


def test_a_new_score_takes_the_place_of_the_old_in_the_pool(pool: Pool, interactions: Interactions) -> None:
    interactions.add_score("i1", [9.0, 9.0], 0.1, 0.1, 102.0, question=77, uncertainty=0.1)
    columns = pool.columns()
    assert (columns.seq.tolist(), int(columns.question[0])) == ([1, 2, 3, 4], 77)


def test_recent_uncertainties_are_of_one_checkpoint_newest_first(pool: Pool) -> None:
    assert pool.recent_uncertainties("base", 2) == [0.4, 0.2]
    assert pool.recent_uncertainties("other", 2) == []


def test_questions_are_counted_by_person_and_arm(pool: Pool, labels: Labels, make) -> None:
    labels.add(make.task("t1", "i1", created_at=100.0, arm=Arm.RANDOM))
    labels.add(make.task("t2", "i2", created_at=200.0, arm=Arm.DENSE_UNCERTAIN))
    labels.add(make.task("t3", "i3", created_at=300.0))
    labels.resolve("t1", LabelState.SKIPPED, 400.0)
    labels.resolve("t3", LabelState.RIGHT, 400.0)
    assert labels.get("t1").arm is Arm.RANDOM
    assert labels.count_added_by_person(0.0) == {"ann": 2, "bob": 1}
    assert labels.count_added_by_person(200.0) == {"ann": 1, "bob": 1}
    assert labels.count_settled_by_person() == {"ann": (1, 2)}
    assert labels.count_by_arm() == {
        Arm.RANDOM: {LabelState.SKIPPED: 1},
        Arm.DENSE_UNCERTAIN: {LabelState.OPEN: 1},
        None: {LabelState.RIGHT: 1},
    }


def test_embedded_rows_come_chunk_by_chunk_and_of_one_length(
    pool: Pool, interactions: Interactions, log: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.pool.VECTOR_CHUNK", 2)
    assert pool.dim() == 2
    chunks = list(pool.embedded(2))
    assert [seqs.tolist() for seqs, _, _ in chunks] == [[1, 2], [3, 4]]
    assert chunks[1][1].tolist() == [[3.0, 1.0], [4.0, 1.0]]
    assert chunks[1][2].tolist() == [0.5, 0.5]
    interactions.add_score("i5", [1.0, 2.0, 3.0], 0.5, 0.25, 101.0, question=5, uncertainty=0.5)
    assert pool.dim() == 3
    assert [seqs.tolist() for seqs, _, _ in pool.embedded(3)] == [[], [], [5]]


def test_before_the_first_score_there_is_no_length(log: Database) -> None:
    assert Pool(log).dim() is None
    assert list(Pool(log).embedded(2)) == []
