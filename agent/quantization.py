"""Weights of one byte: for each output 255 even steps, as wide as its largest weight needs."""

import torch

PIECE = 4096  # outputs at once: a vocabulary's worth of float32 would not fit beside the rest


def quantise(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, K) to int8 steps and a float32 scale for each output. A weight that is not finite makes its scale so: it is
    found in the logits.
    """
    steps = torch.empty(matrix.shape, dtype=torch.int8)
    scales = torch.empty(len(matrix))
    for first in range(0, len(matrix), PIECE):
        piece = matrix[first : first + PIECE].float()
        largest = piece.abs().amax(dim=1) / 127
        even = (piece / largest.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
        steps[first : first + PIECE] = even.nan_to_num().to(torch.int8)
        scales[first : first + PIECE] = largest
    return steps, scales
