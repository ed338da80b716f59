"""Which outputs of each layer decide what the base says: where an adapter must tread softly.

A layer whose output moves by d changes the model's distribution by about ½ dᵀ·G·d nats, where G is the second moment of
the gradient at that output (Fisher's information). With the inputs' second moment it makes K-FAC's picture (Martens and
Grosse 2015) of the KL to the base. An adapter's B is learnt as G^-½·C: equal steps of C then cost equal KL, whichever
output they move, and the KL of the whole adapter is about a weighted sum of C's squares.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations
from transformers import PreTrainedModel

from agent.replay import collate, hidden_states
from agent.tokenizer import AnsweredIds

ROWS_TOGETHER = 12

Influence = Mapping[str, torch.Tensor]
Progress = Callable[[int, int], None]


def influence(
    model: PreTrainedModel, rows: Sequence[AnsweredIds], seed: int, progress: Progress = lambda done, of: None
) -> Influence:
    """Mean over the rows' answer tokens of g·gᵀ (outputs, outputs), float32, for each linear layer of the decoder.

    g is the gradient of the loss on tokens that the model draws itself: those of the rows would tell how wrong it is on
    them, not what moves it. The same seed draws the same tokens.
    """
    sums: dict[str, torch.Tensor] = {}
    drawn = torch.Generator().manual_seed(seed)
    head, num_tokens = model.get_output_embeddings(), 0
    with _watched(model, sums):
        for start in range(0, len(rows), ROWS_TOGETHER):
            states = hidden_states(model, collate(rows[start : start + ROWS_TOGETHER]))
            logits = head(states).float()
            chances = torch.softmax(logits.detach().cpu(), dim=-1)
            tokens = torch.multinomial(chances, 1, generator=drawn)[:, 0].to(logits.device)
            torch.nn.functional.cross_entropy(logits, tokens, reduction="sum").backward()
            num_tokens += len(tokens)
            progress(min(start + ROWS_TOGETHER, len(rows)), len(rows))
    return {name: total.cpu() / num_tokens for name, total in sums.items()}


def softening(moment: torch.Tensor, floor: float) -> torch.Tensor:
    """(G / mean(G) + floor·I)^-½ for a second moment (outputs, outputs): about 1 on average where nothing stands out.

    The floor keeps an output that never mattered in the rows from being moved without measure. The identity when no
    output mattered at all.
    """
    mean = moment.diagonal().mean()
    identity = torch.eye(len(moment))
    if not mean > 0:
        return identity
    values, vectors = torch.linalg.eigh(moment / mean + floor * identity)
    return (vectors * values.clamp_min(floor).rsqrt()) @ vectors.T


@contextmanager
def _watched(model: PreTrainedModel, sums: dict[str, torch.Tensor]) -> Iterator[None]:
    """While inside, a backward pass adds g·gᵀ of each linear layer's output to `sums`.

    The embeddings are given a gradient: with all weights frozen there would be no backward pass otherwise.
    """

    def watch(name: str) -> Callable[[Any, Any, torch.Tensor], None]:
        def add(gradient: torch.Tensor) -> None:
            g = gradient.flatten(0, -2).float()
            sums.setdefault(name, torch.zeros(g.shape[-1], g.shape[-1], device=g.device)).addmm_(g.T, g)

        def look(_: Any, arguments: Any, output: torch.Tensor) -> None:
            output.register_hook(add)

        return look

    decoder: torch.nn.Module = model.get_decoder()
    layers = [(name, layer) for name, layer in decoder.named_modules() if isinstance(layer, torch.nn.Linear)]
    hooks = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    hooks.append(
        model.get_input_embeddings().register_forward_hook(lambda _, arguments, output: output.requires_grad_())
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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

    by: torch.Tensor

    def __init__(self, by: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("by", by, persistent=False)

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return self.by @ matrix


def soften(adapted: Any, kept: Mapping[str, torch.Tensor], outputs: Influence, floor: float) -> Drift:
    """Let each LoRA B of a PEFT model be learnt softly, until `settle`. By layer, `kept` are the inputs' second moments
    and `outputs` the gradients'; a layer that either lacks is left as it is.
    """
    drift = Drift()
    decoder = adapted.get_base_model().get_decoder()
    for name, layer in decoder.named_modules():
        if not hasattr(layer, "lora_A") or name not in kept or name not in outputs:
            continue
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"]
        inputs, moment = kept[name].to(a.device), outputs[name]
        response = torch.einsum("nw,wv,nv->n", a, inputs, a) + floor * inputs.diagonal().mean() * a.square().sum(dim=1)
        register_parametrization(b, "weight", _Softened(softening(moment, floor).to(a.device)))
        scale = layer.scaling["default"]
        drift.add(b.parametrizations.weight.original, (scale**2 * moment.diagonal().mean() * response).detach())
    return drift


def settle(adapted: Any) -> None:
    """Plain LoRA again, with B as it was learnt."""
    for module in adapted.modules():
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight", leave_parametrized=True)
