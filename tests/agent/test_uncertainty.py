"""One number an answer, from its tokens' entropies."""

import pytest

from agent.uncertainty import mean_entropy
from store.records import TokenTrace


def test_the_score_is_the_mean_entropy_of_the_tokens() -> None:
    tokens = [TokenTrace(1, -0.1, 0.5), TokenTrace(2, -5.0, 1.0), TokenTrace(3, -0.2, 3.0)]
    assert mean_entropy(tokens) == pytest.approx(1.5)


def test_a_sure_answer_scores_zero() -> None:
    assert mean_entropy([TokenTrace(1, 0.0, 0.0)]) == 0.0


def test_an_answer_without_tokens_has_no_score_rather_than_zero() -> None:
    assert mean_entropy([]) is None
