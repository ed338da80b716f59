"""Logits to a token: greedy, nucleus, seeds, and the figures beside it."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine import Sampling
from agent.sampling import choose, figures, nucleus, top_choices

probabilities = st.lists(st.floats(min_value=1e-3, max_value=1.0), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float64) / sum(values)
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(logprobs: torch.Tensor, sampling: Sampling, seed: int, count: int = 30) -> list[int]:
    generator = seeded(seed)
    return [choose(logprobs, sampling, generator) for _ in range(count)]


def test_entropy_of_the_uniform_distribution_is_the_logarithm_of_its_size() -> None:
    _, entropies = figures(torch.zeros((1, 8)))
    assert entropies.tolist() == pytest.approx([math.log(8)], rel=1e-6)


def test_entropy_of_a_coin_is_log_two_and_of_a_sure_thing_is_nothing() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.5, 1e-30], [1.0, 1e-30, 1e-30]]))
    assert figures(logits)[1].tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_entropy_of_an_uneven_distribution_is_its_textbook_value() -> None:
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert figures(torch.log(torch.tensor([[0.5, 0.25, 0.25]])))[1].item() == pytest.approx(expected, rel=1e-6)


def test_logprobs_do_not_depend_on_a_constant_added_to_the_logits() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(figures(logits)[0], figures(logits + 50)[0], atol=1e-5)


def test_figures_of_half_precision_logits_are_computed_in_float32() -> None:
    logprobs, entropies = figures(torch.zeros((1, 1000), dtype=torch.bfloat16))
    assert (logprobs.dtype, entropies.dtype) == (torch.float32, torch.float32)
    assert entropies.item() == pytest.approx(math.log(1000), rel=1e-5)


def test_an_impossible_token_makes_the_entropy_visibly_broken_and_not_silently_wrong() -> None:
    assert not torch.isfinite(figures(torch.tensor([[0.0, float("nan")]]))[1]).all()


def test_temperature_zero_takes_the_likeliest_token_without_a_generator() -> None:
    assert choose(torch.log(torch.tensor([0.2, 0.5, 0.3])), Sampling(temperature=0.0, top_p=0.1), None) == 1


def test_a_low_temperature_nearly_always_takes_the_likeliest_token() -> None:
    logprobs = torch.log(torch.tensor([0.3, 0.4, 0.3]))
    assert set(drawn(logprobs, Sampling(temperature=0.01), seed=1)) == {1}


def test_a_high_temperature_takes_others_too() -> None:
    logprobs = torch.log(torch.tensor([0.05, 0.9, 0.05]))
    assert set(drawn(logprobs, Sampling(temperature=5.0), seed=1)) == {0, 1, 2}


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    logprobs = torch.log_softmax(torch.zeros(50), dim=-1)
    sampling = Sampling(temperature=1.0)
    assert drawn(logprobs, sampling, seed=7) == drawn(logprobs, sampling, seed=7)
    assert drawn(logprobs, sampling, seed=7) != drawn(logprobs, sampling, seed=8)


def test_sampling_follows_the_probabilities() -> None:
    logprobs = torch.log(torch.tensor([0.7, 0.2, 0.1]))
    tokens = drawn(logprobs, Sampling(temperature=1.0), seed=3, count=1000)
    assert [tokens.count(token) / 1000 for token in range(3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.05)


def test_top_p_never_draws_a_token_outside_the_nucleus() -> None:
    logprobs = torch.log(torch.tensor([0.15, 0.5, 0.3, 0.05]))
    assert set(drawn(logprobs, Sampling(temperature=1.0, top_p=0.8), seed=2, count=200)) == {1, 2}


def test_the_nucleus_is_the_smallest_set_that_reaches_the_mass_renormalised() -> None:
    kept = nucleus(torch.tensor([0.1, 0.4, 0.3, 0.2]), 0.6)
    assert kept.tolist() == pytest.approx([0, 0.4 / 0.7, 0.3 / 0.7, 0])


def test_the_nucleus_of_a_tiny_mass_is_the_likeliest_token_alone() -> None:
    assert nucleus(torch.tensor([0.2, 0.5, 0.3]), 1e-9).tolist() == [0.0, 1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(given=probabilities, top_p=st.floats(min_value=0.01, max_value=0.99))
def test_the_nucleus_has_the_mass_and_would_lack_it_without_its_least_token(given: torch.Tensor, top_p: float) -> None:
    kept = nucleus(given, top_p)
    chosen = given[kept > 0]
    assert float(kept.sum()) == pytest.approx(1.0)
    assert float(chosen.sum()) >= top_p - 1e-9
    assert float(chosen.sum() - chosen.min()) < top_p + 1e-9
    assert float(chosen.min()) >= float(given[kept == 0].max() if (kept == 0).any() else 0.0)


def test_top_choices_are_the_likeliest_best_first() -> None:
    logprobs = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    choices = top_choices(logprobs, 3)
    assert [token for token, _ in choices] == [1, 2, 0]
    assert all(better[1] >= worse[1] for better, worse in pairwise(choices))
    assert choices[0][1] == pytest.approx(math.log(0.5))
    assert top_choices(logprobs, 0) == []
