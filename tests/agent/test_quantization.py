"""Weights of one byte: how near they are."""

import torch

from agent.quantization import PIECE, quantise


def test_a_step_is_half_a_step_off_at_most_and_zeros_stay_zeros() -> None:
    matrix = torch.randn((PIECE + 7, 16), generator=torch.Generator().manual_seed(1))
    matrix[3] = 0
    steps, scales = quantise(matrix)
    assert ((steps.float() * scales[:, None] - matrix).abs() <= scales[:, None] / 2 + 1e-7).all()
    assert (steps.abs().amax(dim=1)[scales > 0] == 127).all()
    assert (steps[3].abs().sum(), scales[3]) == (0, 0)


def test_what_is_not_finite_shows_in_the_scale() -> None:
    matrix = torch.ones((3, 4))
    matrix[0, 1], matrix[2, 2] = float("nan"), float("inf")
    assert quantise(matrix)[1].isfinite().tolist() == [False, True, False]
