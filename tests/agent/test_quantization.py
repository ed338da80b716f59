"""Weights of one byte: how near they are, and that what is measured is what serves."""

import ctypes

import torch
from transformers import PreTrainedModel

from agent.engines.native import NativeRunner
from agent.engines.reference import ReferenceRunner
from agent.engines.runner import Piece
from agent.kernels.weights import pack
from agent.quantization import PIECE, quantise, rounded


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


def test_a_rounded_model_answers_as_int8_serving_does_and_leaves_the_whole_one_alone(
    library: ctypes.CDLL, base: PreTrainedModel
) -> None:
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    served = NativeRunner(library, pack(base, 64, is_int8=True), num_blocks=4, threads=1)
    piece = [Piece(list(range(40, 60)), 0, [0, 1], is_whole=True)]
    serving = served.run(piece).logits[0].clone()
    measured, whole = (ReferenceRunner(model).run(piece).logits[0] for model in (rounded(base), base))
    served.close()
    assert (serving - measured).norm() < 0.5 * (serving - whole).norm()
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.named_parameters())
