"""Interactions, scores and feedback: what goes in comes out, and each query picks just its rows."""

from pathlib import Path

import numpy as np
import pytest

from store import migrations
from store.database import Database, StoreError
from store.interactions import Interactions, UnknownInteraction, pack, unpack
from store.records import FinishReason, Rating, TokenTrace


def ids(found) -> list[str]:
    return [interaction.id for interaction in found]


def test_an_interaction_comes_back_as_it_went_in(interactions: Interactions, make) -> None:
    told = make.interaction(reply='Grüße, "du" 🙂\n', sampling={"stop": ["a", "b"], "seed": None})
    interactions.append(told)
    assert interactions.get("i1") == told


def test_an_interaction_without_tokens_comes_back_as_it_went_in(interactions: Interactions, make) -> None:
    told = make.interaction(tokens=(), uncertainty=None, finish_reason=FinishReason.ERROR, messages=(), sampling={})
    interactions.append(told)
    assert interactions.get("i1") == told


def test_an_interaction_or_a_feedback_is_found_by_the_beginning_of_its_id(interactions: Interactions, make) -> None:
    for id_ in ("9f86-turn", "9f87-turn", "f"):
        interactions.append(make.interaction(id_))
    for id_ in ("9f86-word", "2c26-word"):
        interactions.add_feedback(make.feedback(id_, "9f87-turn"))
    wanted = ("9f86-t", "9f86-w", "2c26", "9f86-turn", "2c26-word", "f")
    found = ["9f86-turn", "9f86-word", "2c26-word", "9f86-turn", "2c26-word", "f"]
    assert [interactions.id_beginning_with(text) for text in wanted] == found
    assert interactions.id_beginning_with("9f88") is None
    for text in ("9f86", "9f8"):
        with pytest.raises(StoreError, match="give"):
            interactions.id_beginning_with(text)


def test_an_unknown_id_gives_none(interactions: Interactions) -> None:
    assert interactions.get("i9") is None


def test_an_appended_interaction_survives_closing(tmp_path: Path, make) -> None:
    first = Database(tmp_path / "x.db", migrations.log)
    Interactions(first).append(make.interaction())
    first.close()
    second = Database(tmp_path / "x.db", migrations.log)
    assert Interactions(second).get("i1") == make.interaction()
    second.close()


def test_submit_resolves_when_the_row_is_there(interactions: Interactions, make) -> None:
    interactions.submit(make.interaction()).result(5)
    assert interactions.count() == 1


def test_the_same_id_twice_is_refused_and_the_first_stays(interactions: Interactions, make) -> None:
    interactions.append(make.interaction())
    with pytest.raises(StoreError, match="append-only"):
        interactions.append(make.interaction(reply="other"))
    assert interactions.get("i1").reply == "Honed."


def test_recent_gives_the_newest_first(interactions: Interactions, make) -> None:
    for n in range(4):
        interactions.append(make.interaction(f"i{n}"))
    assert ids(interactions.recent(2)) == ["i3", "i2"]


def test_traces_take_twelve_bytes_a_token_and_lose_nothing_that_matters() -> None:
    traces = tuple(TokenTrace(n, -n / 3, n / 7) for n in range(100))
    blob = pack(traces)
    assert len(blob) == 1200
    for before, after in zip(traces, unpack(blob), strict=True):
        assert before.token_id == after.token_id
        assert after.logprob == pytest.approx(before.logprob, rel=1e-6)
        assert after.entropy == pytest.approx(before.entropy, rel=1e-6)


def test_unscored_gives_whole_answers_without_a_score_oldest_first(interactions: Interactions, make) -> None:
    for n, reason in enumerate([FinishReason.STOP, FinishReason.ERROR, FinishReason.LENGTH, FinishReason.DISCONNECT]):
        interactions.append(make.interaction(f"i{n}", finish_reason=reason))
    interactions.append(make.interaction("i4"))
    interactions.add_score("i0", [1.0], 0.1, 0.1, 101.0, question=7, uncertainty=0.5)
    assert ids(interactions.unscored(10)) == ["i2", "i4"]
    assert ids(interactions.unscored(1)) == ["i2"]


def test_vectors_come_back_as_float32_in_the_order_they_were_scored(
    interactions: Interactions, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 2, 3):
        interactions.append(make.interaction(f"i{n}"))
    interactions.add_score("i2", [0.0, 1.0], 0.1, 0.9, 101.0, question=7, uncertainty=0.5)
    interactions.add_score("i1", np.array([1.0, 0.5]), 0.2, 0.8, 102.0, question=8, uncertainty=0.5)
    interactions.add_score("i3", [1.0, 1.0], 0.2, 0.8, 103.0, question=9, uncertainty=0.5)
    for size in (1, 2, 4096):
        monkeypatch.setattr("store.interactions.CHUNK", size)
        chunks = list(interactions.vectors(2))
        assert [id_ for found, _ in chunks for id_ in found] == ["i2", "i1", "i3"]
        array = np.concatenate([array for _, array in chunks])
        assert array.dtype == np.float32
        assert array.tolist() == [[0.0, 1.0], [1.0, 0.5], [1.0, 1.0]]
        assert len(chunks) == -(-3 // size)


def test_no_vectors_give_nothing(interactions: Interactions) -> None:
    assert list(interactions.vectors(2)) == []


def test_a_new_score_takes_the_place_of_the_old_and_other_lengths_are_left_out(
    interactions: Interactions, make
) -> None:
    for n in (1, 2):
        interactions.append(make.interaction(f"i{n}"))
        interactions.add_score(f"i{n}", [1.0, 0.0], 0.1, 0.1, 101.0, question=7, uncertainty=0.5)
    interactions.add_score("i2", [1.0, 0.0, 0.0], 0.1, 0.1, 102.0, question=7, uncertainty=0.5)
    ((found, array),) = interactions.vectors(3)
    assert found == ["i2"]
    assert array.shape == (1, 3)


def test_scores_and_feedback_need_their_interaction(interactions: Interactions, make) -> None:
    with pytest.raises(UnknownInteraction, match="i9"):
        interactions.add_score("i9", [1.0], 0.1, 0.1, 101.0, question=7, uncertainty=0.5)
    with pytest.raises(UnknownInteraction, match="i9"):
        interactions.add_feedback(make.feedback(interaction_id="i9"))
    assert issubclass(UnknownInteraction, StoreError)


def test_feedback_comes_back_as_it_went_in_and_in_the_order_it_was_given(interactions: Interactions, make) -> None:
    interactions.append(make.interaction())
    told = [
        make.feedback("f1", rating=Rating.DOWN, comment="no"),
        make.feedback("f2", correction="I am honed.", created_at=150.0),  # the clock went back
        make.feedback("f3", is_excluded=True),
    ]
    for feedback in told:
        interactions.add_feedback(feedback)
    assert interactions.feedback_for("i1") == told
    assert interactions.feedback_for("i2") == []
    assert interactions.count_feedback() == 3


def test_the_newest_feedback_of_each_interaction_stands(interactions: Interactions, make) -> None:
    for n in (1, 2, 3):
        interactions.append(make.interaction(f"i{n}"))
    words = [("f1", "i2"), ("f2", "i1"), ("f3", "i2"), ("f4", "i1")]
    for feedback_id, interaction_id in words:
        interactions.add_feedback(make.feedback(feedback_id, interaction_id))
    assert [(i.id, f.id) for i, f in interactions.standing_feedback()] == [("i1", "f4"), ("i2", "f3")]


def test_confident_gives_the_surest_answers_nobody_objected_to(interactions: Interactions, make) -> None:
    sure = {"i1": 0.3, "i2": 0.1, "i3": 0.2, "i4": 0.05, "i5": 0.06, "i6": 0.07, "i7": None}
    for id_, uncertainty in sure.items():
        interactions.append(make.interaction(id_, uncertainty=uncertainty))
    interactions.append(make.interaction("i8", uncertainty=0.01, checkpoint_id="other"))
    interactions.append(make.interaction("i9", uncertainty=0.01, finish_reason=FinishReason.DISCONNECT))
    interactions.add_feedback(make.feedback("f1", "i1", rating=Rating.UP))
    interactions.add_feedback(make.feedback("f4", "i4", rating=Rating.DOWN))
    interactions.add_feedback(make.feedback("f4b", "i4", rating=Rating.UP))
    interactions.add_feedback(make.feedback("f5", "i5", correction="no"))
    interactions.add_feedback(make.feedback("f6", "i6", is_excluded=True))
    assert ids(interactions.confident("base", 10)) == ["i2", "i3", "i1"]
    assert ids(interactions.confident("base", 1)) == ["i2"]


def test_vectors_are_found_by_id_where_they_have_the_newest_length(interactions: Interactions, make) -> None:
    for number, vector in enumerate(([1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])):
        interactions.append(make.interaction(f"i{number}"))
        interactions.add_score(f"i{number}", vector, 0.5, 0.5, float(number), question=number, uncertainty=1.0)
    found = interactions.vectors_of(["i0", "i1", "i2", "nobody"])
    assert {id_: vector.tolist() for id_, vector in found.items()} == {"i1": [0.0, 1.0, 0.0], "i2": [0.0, 0.0, 1.0]}
    assert interactions.vectors_of([]) == {}
