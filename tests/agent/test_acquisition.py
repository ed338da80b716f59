"""What is worth asking a person about: uncertainty among recent answers, and novelty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.acquisition import NOVELTY_WEIGHT, acquire

RECENT = [0.1, 0.2, 0.3, 0.4]
entropies = st.floats(min_value=0.0, max_value=12.0)
cosines = st.none() | st.floats(min_value=-1.0, max_value=1.0)


def test_the_most_unsure_and_newest_answer_scores_one() -> None:
    assert acquire(0.5, None, RECENT).score == pytest.approx(1.0)


def test_the_surest_answer_to_a_known_question_scores_nothing() -> None:
    assert acquire(0.05, 1.0, RECENT).score == pytest.approx(0.0)


def test_uncertainty_counts_by_rank_and_not_by_size() -> None:
    small, large = acquire(0.25, 1.0, RECENT), acquire(25.0, 1.0, [10.0, 20.0, 30.0, 40.0])
    assert small.score == large.score == pytest.approx((1 - NOVELTY_WEIGHT) * 0.5)


def test_the_first_answer_ranks_in_the_middle() -> None:
    assert acquire(0.7, 1.0, []).score == pytest.approx((1 - NOVELTY_WEIGHT) * 0.5)


def test_a_new_question_scores_above_a_known_one_of_the_same_uncertainty() -> None:
    assert acquire(0.25, 0.1, RECENT).score > acquire(0.25, 0.95, RECENT).score


def test_cosines_past_their_range_make_no_novelty_outside_zero_and_one() -> None:
    assert acquire(0.2, 1.0000002, RECENT).novelty == 0.0
    assert acquire(0.2, -0.5, RECENT).novelty == 1.0


def test_an_answer_without_tokens_is_not_worth_asking_about() -> None:
    acquisition = acquire(None, None, RECENT)
    assert acquisition.score == 0.0
    assert acquisition.reason == "no answer to ask about"


def test_the_reason_tells_a_person_the_rank_and_what_is_new() -> None:
    assert acquire(0.35, 0.9, RECENT).reason == "less sure than 75% of recent answers (uncertainty 0.35)"
    assert acquire(0.35, 0.1, RECENT).reason.endswith(", and unlike anything asked before")


@given(uncertainty=entropies, nearest=cosines, recent=st.lists(entropies, max_size=8))
def test_scores_lie_between_zero_and_one(uncertainty: float, nearest: float | None, recent: list[float]) -> None:
    assert 0.0 <= acquire(uncertainty, nearest, recent).score <= 1.0


@given(low=entropies, high=entropies, nearest=cosines, recent=st.lists(entropies, max_size=8))
def test_more_uncertainty_never_scores_less(
    low: float, high: float, nearest: float | None, recent: list[float]
) -> None:
    low, high = sorted((low, high))
    assert acquire(low, nearest, recent).score <= acquire(high, nearest, recent).score
