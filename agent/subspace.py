"""Which directions of its input each adapter layer reads: those in which the lessons stand out from what must stay.

A LoRA layer adds B·A·x to W·x. With A's rows where lessons have much energy and replay rows have little, whatever B
becomes, text like the replay rows passes almost unchanged. Kin: LoRA-Null (Tang et al. 2025) starts A in the null
space of kept activations, CorDA (Yang et al. 2024) orients it by their covariance; here both sides are weighed against
each other (a generalised eigenproblem) and A stays as it is set.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.layout import lay_out
from agent.tokenizer import AnsweredIds

ROWS_TOGETHER = 16
REFINEMENTS = 8  # power iterations: the leading directions to about four digits
UNUSED = 1e-3  # of the strongest response: below, the lessons do not use a direction

Moments = Mapping[str, torch.Tensor]
Progress = Callable[[int, int], None]


def second_moments(
    model: PreTrainedModel, rows: Sequence[AnsweredIds], progress: Progress = lambda done, of: None
) -> Moments:
    """Mean of x·xᵀ (width, width), float32, over the rows' tokens, for the input x of each linear layer of the decoder.

    What a batch of rows shares at the beginning (the system prompt) counts once. Layers fed the same input share a sum.
    """
    sums: dict[str, torch.Tensor] = {}
    num_tokens, num_done = 0, 0
    with torch.no_grad(), _watched(model, sums):
        for start in range(0, len(rows), ROWS_TOGETHER):
            group = rows[start : start + ROWS_TOGETHER]
            layout = lay_out([row.ids for row in group], min(row.answer_at for row in group) - 1)
            model.get_decoder()(
                input_ids=layout.ids.to(model.device),
                attention_mask=layout.sees.to(model.device),
                position_ids=layout.positions.to(model.device),
                use_cache=False,
            )
            num_tokens += layout.ids.shape[1]
            num_done += len(group)
            progress(num_done, len(rows))
    means = {id(total): total.cpu() / num_tokens for total in sums.values()}
    return {name: means[id(total)] for name, total in sums.items()}


def standing_out(lessons: torch.Tensor, kept: torch.Tensor, num: int, floor: float) -> torch.Tensor:
    """The `num` directions (num, width) with the most energy in `lessons` for their energy in `kept`.

    Both are second moments (width, width). They maximise aᵀ·L·a / aᵀ·(K + floor·mean(K)·I)·a; the floor keeps
    directions that no kept row happens to use from looking better than they are. They come scaled so that the lessons'
    response has the size a fresh LoRA layer gives it. ValueError when there are not so many directions.
    """
    width = kept.shape[0]
    if num > width:
        raise ValueError(f"rank {num} is more than the {width} inputs of a layer; choose a rank of at most {width}")
    kept, lessons = kept.double(), lessons.double()
    mean = kept.diagonal().mean()
    whitener = torch.linalg.cholesky(kept + floor * mean * torch.eye(width, dtype=torch.float64))
    half = torch.linalg.solve_triangular(whitener, lessons, upper=False)
    contrast = torch.linalg.solve_triangular(whitener, half.T, upper=False)
    _, _, leading = torch.svd_lowrank(contrast, q=min(width, num + 8), niter=REFINEMENTS)
    directions = torch.linalg.solve_triangular(whitener.T, leading[:, :num], upper=True).T
    response = torch.einsum("nw,wv,nv->n", directions, lessons, directions)
    # PEFT's start: each row's response to the lessons has a third of their mean energy.
    wanted = lessons.diagonal().mean() / 3
    # Few short lessons have fewer directions than the rank: the rest would be noise made loud, and stays silent.
    is_used = response > UNUSED * response.max()
    scale = torch.where(is_used, torch.sqrt(wanted / response), 0.0)
    return (directions * scale[:, None]).float()


def aim(adapted: Any, lessons: Moments, kept: Moments, floor: float) -> None:
    """Set each LoRA A of a PEFT model to the directions where the lessons stand out, and leave only B to train.

    A layer that no row went through (an expert never chosen) keeps its random A.
    """
    found: dict[tuple[int, int], torch.Tensor] = {}  # layers fed the same input share moments, and so directions
    decoder = adapted.get_base_model().get_decoder()
    for name, layer in decoder.named_modules():
        if not hasattr(layer, "lora_A") or name not in lessons or name not in kept:
            continue
        weight = layer.lora_A["default"].weight
        key = (id(lessons[name]), weight.shape[0])
        if key not in found:
            found[key] = standing_out(lessons[name], kept[name], weight.shape[0], floor)
        weight.data.copy_(found[key])
        weight.requires_grad_(False)


@contextmanager
def _watched(model: PreTrainedModel, sums: dict[str, torch.Tensor]) -> Iterator[None]:
    """While inside, every linear layer adds x·xᵀ of its input to `sums`; layers fed the same tensor share the sum."""
    fed: dict[str, Any] = {"input": None, "sum": None}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def add(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            given = arguments[0]
            if given is not fed["input"]:
                x = given.detach().flatten(0, -2).float()
                fed["input"] = given
                fed["sum"] = sums.setdefault(name, torch.zeros(x.shape[-1], x.shape[-1], device=x.device))
                fed["sum"].addmm_(x.T, x)
            sums[name] = fed["sum"]

        return add

    decoder: torch.nn.Module = model.get_decoder()
    layers = [(name, layer) for name, layer in decoder.named_modules() if isinstance(layer, torch.nn.Linear)]
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
