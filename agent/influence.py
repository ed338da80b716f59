"""An adapter that treads softly where the base's answers depend on a layer's output.

Its B is learnt as G^-½·C, with G the survey's second moment of the gradients at that output: equal steps of C then cost
equal KL, whichever output they move, and the KL of the whole adapter is about a weighted sum of C's squares.
"""

from typing import Any

import torch
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from agent.moments import Stretch
from agent.survey import Survey


class Drift:
    """What an adapter has cost so far, about: the weighted squares of its C's. Free of any forward pass."""

    def __init__(self) -> None:
        self._terms: list[tuple[torch.nn.Parameter, torch.Tensor]] = []

    def add(self, matrix: torch.nn.Parameter, weights: torch.Tensor) -> None:
        """C (outputs, rank) of a layer, and what a unit square in each of its columns costs (rank,)."""
        self._terms.append((matrix, weights))

    def loss(self) -> torch.Tensor:
        """In nats a token, as far as layers do not work together; 0 for an untouched adapter."""
        return torch.stack([(matrix.square().sum(dim=0) * weights).sum() for matrix, weights in self._terms]).sum()


class _Softened(torch.nn.Module):  # type: ignore[misc]
    """B as G^-½·C."""

    vectors: torch.Tensor
    extra: torch.Tensor

    def __init__(self, by: Stretch, device: torch.device) -> None:
        super().__init__()
        self._rest = by.rest
        self.register_buffer("vectors", by.vectors.to(device), persistent=False)
        self.register_buffer("extra", by.extra.to(device), persistent=False)

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return Stretch(self.vectors, self.extra, self._rest).columns(matrix)


def soften(adapted: Any, survey: Survey, floor: float) -> Drift:
    """Let each LoRA B of a PEFT model be learnt softly, until `settle`. A layer that the survey lacks is left as it is.

    The floor, a share of the mean influence, keeps an output that never mattered from being moved without measure.
    """
    drift = Drift()
    decoder = adapted.get_base_model().get_decoder()
    for name, layer in decoder.named_modules():
        if not hasattr(layer, "lora_A") or name not in survey.inputs or name not in survey.outputs:
            continue
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"]
        inputs, outputs = survey.inputs[name], survey.outputs[name]
        response = inputs.mean * inputs.power(0.5, floor)(a.detach()).square().sum(dim=1)
        register_parametrization(b, "weight", _Softened(outputs.power(-0.5, floor), a.device))
        scale = layer.scaling["default"]
        drift.add(b.parametrizations.weight.original, 0.5 * scale**2 * outputs.mean * response)
    return drift


def settle(adapted: Any) -> None:
    """Plain LoRA again, with B as it was learnt."""
    for module in adapted.modules():
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight", leave_parametrized=True)
