"""Which directions of its input each adapter layer reads: those in which the lessons stand out from what must stay.

A LoRA layer adds B·A·x to W·x. With A's rows where lessons have much energy and everyday text has little, whatever B
becomes, text like the everyday passes almost unchanged. Kin: LoRA-Null (Tang et al. 2025) starts A in the null
space of kept activations, CorDA (Yang et al. 2024) orients it by their covariance; here both sides are weighed against
each other (a generalised eigenproblem) and A stays as it is set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.hooks import fed_by
from agent.moments import Moment, Sketches, Stretch
from agent.replay import collate, hidden_states
from agent.tokenizer import AnsweredIds

ROWS_TOGETHER = 16
SPARE = 16  # directions looked for beyond those taken: the last ones found are the least exact
UNUSED = 1e-3  # of the strongest response: below, the lessons do not use a direction


def standing_out(
    model: PreTrainedModel, rows: Sequence[AnsweredIds], kept: Mapping[str, Moment], num: int, floor: float, seed: int
) -> dict[str, torch.Tensor]:
    """By layer, the `num` directions (num, width) of its input with the most energy in `rows` for their energy in
    `kept`; layers without a kept moment are left out. Layers fed the same input get the same.

    ValueError when a layer has not so many inputs.
    """
    for name, moment in kept.items():
        width = len(moment.vectors)
        if num > width:
            raise ValueError(f"rank {num} is more than the {width} inputs of {name}; choose a rank of at most {width}")
    whiteners: dict[int, Stretch] = {}
    seen, energy = Sketches(num + SPARE, seed), dict[str, float]()

    def add(name: str, given: torch.Tensor) -> None:
        if name in kept:
            whiten = whiteners.setdefault(id(kept[name]), kept[name].power(-0.5, floor))
            x = given.flatten(0, -2).float()
            seen.add(name, whiten(x))
            energy[name] = energy.get(name, 0.0) + float(x.square().mean(dim=1).sum())

    num_tokens = 0
    with torch.no_grad(), fed_by(model, add) as leaders:
        for start in range(0, len(rows), ROWS_TOGETHER):
            batch = collate(rows[start : start + ROWS_TOGETHER])
            hidden_states(model, batch)
            num_tokens += batch.layout.ids.shape[1]
    found = {
        name: directions(moment, whiteners[id(kept[name])], energy[name] / num_tokens, num)
        for name, moment in seen.moments(num_tokens).items()
    }
    return {name: found[leader] for name, leader in leaders.items() if leader in found}


def directions(whitened: Moment, whitener: Stretch, energy: float, num: int) -> torch.Tensor:
    """The leading `num` directions (num, width) of inputs whose moment after the whitener is `whitened`.

    They maximise aᵀ·L·a / aᵀ·(K + floor·mean(K)·I)·a; the floor keeps directions that no kept row happens to use from
    looking better than they are. They come scaled so that the lessons' response has the size a fresh LoRA layer gives
    it: a third of `energy`, the mean energy of an input coordinate.
    """
    response = whitened.values[:num]
    # Few short lessons have fewer directions than the rank: the rest would be noise made loud, and stays silent.
    is_used = response > UNUSED * response.max()
    scale = torch.where(is_used, torch.sqrt(energy / 3 / response.clamp_min(1e-30)), 0.0)
    return whitener(whitened.vectors[:, :num].T) * scale[:, None]


def aim(adapted: Any, found: Mapping[str, torch.Tensor]) -> None:
    """Set each LoRA A of a PEFT model to the directions found for its layer, and leave only B to train.

    A layer without any (an expert that no row chose) keeps its random A.
    """
    for name, layer in adapted.get_base_model().get_decoder().named_modules():
        if hasattr(layer, "lora_A") and name in found:
            weight = layer.lora_A["default"].weight
            weight.data.copy_(found[name])
            weight.requires_grad_(False)
