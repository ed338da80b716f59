"""What the judged questions near one say of it."""

import numpy as np
import pytest

from agent.neighbours import NEAREST, Neighbours


def topics(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of two topics in turn, of which the second is always wrong."""
    draw = np.random.default_rng(seed)
    wrong = np.arange(count) % 2.0
    vectors = np.eye(2, 8)[wrong.astype(int)] + 0.05 * draw.normal(size=(count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), wrong


@pytest.mark.parametrize("count", [4, NEAREST, 4 * NEAREST])
def test_a_question_fares_like_those_of_its_topic(count: int) -> None:
    asked, wrong = topics(40, seed=1)
    shares = Neighbours(*topics(count)).share_wrong(asked)
    assert (shares[wrong == 1] > 0.85).all()
    assert (shares[wrong == 0] < 0.15).all()


def test_a_share_is_never_none_or_all() -> None:
    vectors, _ = topics(20)
    for all_alike in (np.zeros(20), np.ones(20)):
        shares = Neighbours(vectors, all_alike).share_wrong(vectors)
        assert ((shares > 0) & (shares < 1)).all()


def test_without_a_vector_or_without_judgements_it_is_the_overall_rate() -> None:
    vectors, _ = topics(20)
    wrong = (np.arange(20) < 5).astype(float)
    assert Neighbours(vectors, wrong).share_wrong(np.zeros((1, 8), np.float32)) == pytest.approx(5.5 / 21)
    assert Neighbours(np.zeros((0, 8), np.float32), np.zeros(0)).share_wrong(vectors) == pytest.approx(0.5)


def test_many_are_told_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours, (asked, _) = Neighbours(*topics(60)), topics(30, seed=2)
    whole = neighbours.share_wrong(asked)
    monkeypatch.setattr("agent.neighbours.CHUNK", 7)
    assert neighbours.share_wrong(asked) == pytest.approx(whole)
