"""Logits to a token: what the filters leave, how the draw falls, penalties and bias, and the figures beside it."""

import math
import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine import Sampling
from agent.engines.runner import Choice, Figures
from agent.sampling import adjust, choice, choose, figures, is_plain, top_choices, uniform

NEARLY_ONE = 1.0 - 2.0**-53  # the largest draw: of what a filter leaves, sorted, it takes the last

probabilities = st.lists(st.floats(min_value=1e-3, max_value=1.0), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float64) / sum(values)
)


def logits(*shares: float) -> torch.Tensor:
    return torch.log(torch.tensor(shares))


def how(uniform: float = 0.0, **changes: Any) -> Choice:
    values: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    return Choice(**(values | changes), uniform=uniform)


def drawn(of: torch.Tensor, *, seed: int = 3, count: int = 1000, **changes: Any) -> list[int]:
    return choose([of] * count, [how(uniform(seed, index), **changes) for index in range(count)])


def shares(tokens: list[int], size: int) -> list[float]:
    return [tokens.count(token) / len(tokens) for token in range(size)]


def only(of: torch.Tensor) -> Figures:
    (one,) = figures(of[None])
    return one


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_entropy_of_the_uniform_distribution_is_the_logarithm_of_its_size() -> None:
    assert only(torch.zeros(8)).entropy == pytest.approx(math.log(8), rel=1e-6)


def test_entropy_of_a_coin_is_log_two_and_of_a_sure_thing_is_nothing() -> None:
    coin, sure = figures(torch.stack([logits(0.5, 0.5, 1e-30), logits(1.0, 1e-30, 1e-30)]))
    assert [coin.entropy, sure.entropy] == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_entropy_of_an_uneven_distribution_is_its_textbook_value() -> None:
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert only(logits(0.5, 0.25, 0.25)).entropy == pytest.approx(expected, rel=1e-6)


def test_the_margin_is_the_lead_of_the_likeliest_token_over_the_second() -> None:
    assert only(torch.tensor([1.0, -5.0, 3.5, 2.0])).margin == pytest.approx(1.5)
    assert only(torch.tensor([1.0, 3.5, 3.5])).margin == 0.0


def test_a_logit_less_log_total_is_the_logarithm_of_the_probability() -> None:
    of = logits(0.2, 0.5, 0.3) + 7.0
    assert (of - only(of).log_total).exp().tolist() == pytest.approx([0.2, 0.5, 0.3], rel=1e-5)


def test_a_constant_added_to_the_logits_moves_log_total_and_nothing_else() -> None:
    of = torch.tensor([1.0, 2.0, 4.0])
    plain, moved = only(of), only(of + 50)
    assert moved.log_total == pytest.approx(plain.log_total + 50)
    assert (moved.best, moved.margin) == (plain.best, plain.margin)
    assert moved.entropy == pytest.approx(plain.entropy, abs=1e-5)


@pytest.mark.parametrize(("of", "best"), [([3.0, 3.0, 1.0], 0), ([1.0, 3.0, 3.0], 1), ([0.0] * 300, 0)])
def test_the_best_token_is_the_first_of_equals(of: list[float], best: int) -> None:
    assert only(torch.tensor(of)).best == best


def test_figures_are_of_each_row_by_itself() -> None:
    rows = torch.stack([logits(0.7, 0.2, 0.1), logits(0.1, 0.1, 0.8)])
    assert figures(rows) == [only(rows[0]), only(rows[1])]
    assert [one.best for one in figures(rows)] == [0, 2]


def test_figures_of_half_precision_logits_are_computed_in_float32() -> None:
    one = only(torch.zeros(1000, dtype=torch.bfloat16))
    assert [one.entropy, one.log_total] == pytest.approx([math.log(1000)] * 2, rel=1e-5)


def test_a_nan_makes_the_entropy_visibly_broken_and_not_silently_wrong() -> None:
    broken, sound = figures(torch.tensor([[0.0, float("nan")], [0.0, 1.0]]))
    assert not math.isfinite(broken.entropy)
    assert math.isfinite(sound.entropy)


def test_top_choices_are_the_likeliest_best_first() -> None:
    of = logits(0.2, 0.5, 0.3) + 2.0
    choices = top_choices(of, only(of).log_total, 3)
    assert [token for token, _ in choices] == [1, 2, 0]
    assert all(better[1] >= worse[1] for better, worse in pairwise(choices))
    assert [logprob for _, logprob in choices] == pytest.approx([math.log(share) for share in (0.5, 0.3, 0.2)])
    assert top_choices(of, only(of).log_total, 1) == choices[:1]
    assert top_choices(of, only(of).log_total, 0) == []


def test_a_token_has_the_same_logprob_among_the_top_choices_as_by_itself() -> None:
    of = 4.0 * torch.randn(300, generator=torch.Generator().manual_seed(0))
    log_total = only(of).log_total
    assert top_choices(of, log_total, 300) == [
        (token, float(of[token]) - log_total) for token in of.argsort(descending=True).tolist()
    ]


# ── the draw ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_draws_lie_in_the_unit_interval_and_fill_it_evenly() -> None:
    draws = [uniform(11, index) for index in range(2000)]
    assert all(0.0 <= draw < 1.0 for draw in draws)
    tenths = [sum(number <= draw * 10 < number + 1 for draw in draws) for number in range(10)]
    assert all(150 <= count <= 250 for count in tenths)


def test_a_draw_is_repeated_by_its_seed_and_index_and_by_no_other() -> None:
    assert uniform(5, 9) == uniform(5, 9)
    assert len({uniform(seed, index) for seed in range(20) for index in range(20)}) == 400


def test_a_choice_takes_its_settings_from_the_request_and_its_draw_from_seed_and_index() -> None:
    asked = Sampling(temperature=0.7, top_k=4, top_p=0.9, min_p=0.1)
    assert choice(asked, 5, 9) == Choice(0.7, 4, 0.9, 0.1, uniform(5, 9))


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    tokens = drawn(logits(0.1, 0.7, 0.2))
    assert shares(tokens, 3) == pytest.approx([0.1, 0.7, 0.2], abs=0.05)


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    assert drawn(torch.zeros(50), seed=7, count=30) == drawn(torch.zeros(50), seed=7, count=30)
    assert drawn(torch.zeros(50), seed=7, count=30) != drawn(torch.zeros(50), seed=8, count=30)


def test_a_constant_added_to_the_logits_changes_no_draw() -> None:
    of = torch.tensor([0.5, 1.0, 2.0, -1.0])
    assert drawn(of, count=200, top_p=0.9) == drawn(of + 64.0, count=200, top_p=0.9)


def test_temperature_sharpens_and_flattens() -> None:
    of = logits(0.2, 0.5, 0.3)
    cold = [0.2**2 / 0.38, 0.5**2 / 0.38, 0.3**2 / 0.38]
    assert shares(drawn(of, temperature=0.5), 3) == pytest.approx(cold, abs=0.05)
    assert set(drawn(of, temperature=0.01)) == {1}
    assert shares(drawn(of, temperature=1000.0), 3) == pytest.approx([1 / 3] * 3, abs=0.05)


@pytest.mark.parametrize("temperature", [1e-5, 1e-40, 1e-300, 1e-320])
def test_a_temperature_next_to_nothing_takes_the_likeliest_token(temperature: float) -> None:
    assert choose([torch.tensor([3.0, 8.0, 5.0])], [how(0.5, temperature=temperature)]) == [1]


def test_top_k_leaves_the_k_likeliest_in_their_proportions() -> None:
    tokens = drawn(logits(0.1, 0.4, 0.2, 0.3), top_k=2)
    assert shares(tokens, 4) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.05)
    assert set(drawn(logits(0.2, 0.5, 0.3), top_k=1, count=50)) == {1}
    assert set(drawn(logits(0.2, 0.5, 0.3), top_k=99)) == {0, 1, 2}


def test_top_k_keeps_the_first_of_equals() -> None:
    assert set(drawn(torch.zeros(6), top_k=2)) == {0, 1}


def test_top_p_leaves_the_smallest_set_that_reaches_the_mass_in_its_proportions() -> None:
    tokens = drawn(logits(0.1, 0.4, 0.3, 0.2), top_p=0.6)
    assert shares(tokens, 4) == pytest.approx([0, 4 / 7, 3 / 7, 0], abs=0.05)


def test_a_tiny_top_p_leaves_the_likeliest_token_alone() -> None:
    assert set(drawn(logits(0.2, 0.5, 0.3), top_p=1e-9, count=100)) == {1}


@settings(max_examples=100, deadline=None)
@given(given=probabilities, top_p=st.floats(min_value=0.01, max_value=0.99))
def test_the_nucleus_has_the_mass_and_would_lack_it_without_its_least_token(given: torch.Tensor, top_p: float) -> None:
    first, least = choose([given.log()] * 2, [how(0.0, top_p=top_p), how(NEARLY_ONE, top_p=top_p)])
    order = given.sort(descending=True, stable=True).indices.tolist()
    nucleus = given[order[: order.index(least) + 1]]
    assert float(nucleus.sum()) >= top_p - 1e-9
    assert float(nucleus.sum() - given[least]) < top_p + 1e-9
    assert first == order[0]


def test_min_p_leaves_what_is_at_least_that_share_of_the_likeliest() -> None:
    of = logits(0.05, 0.5, 0.24, 0.21)
    assert set(drawn(of, min_p=0.4)) == {1, 2, 3}
    assert set(drawn(of, min_p=0.45)) == {1, 2}
    assert set(drawn(of, min_p=1.0)) == {1}
    assert shares(drawn(of, min_p=0.45), 4) == pytest.approx([0, 50 / 74, 24 / 74, 0], abs=0.05)


def test_temperature_comes_before_the_filters() -> None:
    of = logits(0.6, 0.3, 0.1)
    assert set(drawn(of, top_p=0.6)) == {0}
    assert set(drawn(of, top_p=0.6, temperature=10.0)) == {0, 1}
    assert set(drawn(of, min_p=0.4)) == {0, 1}
    assert set(drawn(of, min_p=0.4, temperature=10.0)) == {0, 1, 2}


def test_top_p_is_a_share_of_what_top_k_leaves() -> None:
    of = logits(0.4, 0.3, 0.2, 0.1)
    assert set(drawn(of, top_p=0.5)) == {0, 1}
    assert set(drawn(of, top_p=0.5, top_k=2)) == {0}  # 0.4 is more than half of 0.7


def test_the_narrowest_of_the_filters_decides() -> None:
    of = logits(0.4, 0.3, 0.2, 0.1)
    assert set(drawn(of, top_k=3, top_p=0.99, min_p=0.1)) == {0, 1, 2}
    assert set(drawn(of, top_k=3, top_p=0.6, min_p=0.1)) == {0, 1}
    assert set(drawn(of, top_k=3, top_p=0.99, min_p=0.9)) == {0}


def test_each_row_is_drawn_from_by_its_own_settings_as_it_would_be_alone() -> None:
    draw, generator = random.Random(2), torch.Generator().manual_seed(2)
    rows = list(4.0 * torch.randn(200, 30, generator=generator))
    options = {"temperature": (0.1, 1.0), "top_k": (0, 1, 5, 99), "top_p": (1.0, 0.9, 0.1), "min_p": (0.0, 0.2)}
    choices = [how(draw.random(), **{name: draw.choice(some) for name, some in options.items()}) for _ in rows]
    alone = [choose([row], [one])[0] for row, one in zip(rows, choices, strict=True)]
    assert choose(rows, choices) == alone
    assert choose([], []) == []
    assert len(choose(rows, choices[:3])) == 3  # whoever zips them strictly notices


def test_half_precision_logits_are_drawn_from_as_well() -> None:
    tokens = drawn(torch.zeros(4, dtype=torch.bfloat16))
    assert shares(tokens, 4) == pytest.approx([0.25] * 4, abs=0.05)


# ── penalties and bias ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sampling", "plain"),
    [
        (Sampling(), True),
        (Sampling(temperature=1.0, top_k=3, top_p=0.5, min_p=0.1, ignore_eos=True), True),
        (Sampling(presence_penalty=0.1), False),
        (Sampling(frequency_penalty=-0.1), False),
        (Sampling(logit_bias=((3, 1.0),)), False),
    ],
)
def test_a_request_is_plain_without_penalty_and_bias(sampling: Sampling, plain: bool) -> None:
    assert is_plain(sampling) is plain


def test_bias_is_added_to_its_tokens_alone() -> None:
    adjusted = adjust(torch.tensor([1.0, 2.0, 3.0, 4.0]), Sampling(logit_bias=((3, -100.0), (1, 2.5))), {})
    assert adjusted.tolist() == [1.0, 4.5, 3.0, -96.0]


def test_the_presence_penalty_is_taken_once_however_often_a_token_was_said() -> None:
    adjusted = adjust(torch.tensor([1.0, 2.0, 3.0]), Sampling(presence_penalty=0.5), {0: 1, 2: 7})
    assert adjusted.tolist() == [0.5, 2.0, 2.5]


def test_the_frequency_penalty_is_taken_each_time_a_token_was_said() -> None:
    adjusted = adjust(torch.tensor([1.0, 2.0, 3.0]), Sampling(frequency_penalty=0.5), {0: 1, 2: 4})
    assert adjusted.tolist() == [0.5, 2.0, 1.0]


def test_penalties_and_bias_add_up_and_a_negative_penalty_favours_what_was_said() -> None:
    sampling = Sampling(presence_penalty=1.0, frequency_penalty=-2.0, logit_bias=((1, 10.0),))
    assert adjust(torch.zeros(3), sampling, {1: 3, 2: 1}).tolist() == [0.0, 10.0 - 1.0 + 6.0, -1.0 + 2.0]


def test_the_given_logits_stay_as_they_were() -> None:
    of = torch.tensor([1.0, 2.0, 3.0])
    sampling = Sampling(presence_penalty=1.0, frequency_penalty=1.0, logit_bias=((0, 5.0),))
    assert adjust(of, sampling, {0: 2, 1: 1}).tolist() == [3.0, 0.0, 3.0]
    assert of.tolist() == [1.0, 2.0, 3.0]


def test_nothing_said_and_no_bias_changes_nothing() -> None:
    of = torch.tensor([1.0, 2.0])
    assert adjust(of, Sampling(presence_penalty=2.0, frequency_penalty=2.0), {}).tolist() == of.tolist()
