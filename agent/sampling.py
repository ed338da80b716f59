"""Logits to a chosen token and its figures, in torch. Knows nothing of requests' text or of the network.

The native kernels do the same faster (`agent/kernels/head.h`); tests hold them to this.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch

from agent.engine import Sampling
from agent.engines.runner import Choice, Figures

GREEDY_BELOW = 1e-5


def figures(logits: torch.Tensor) -> list[Figures]:
    """Figures of each row of `logits` (B, V), computed in float32."""
    logits = logits.float()
    log_totals = torch.logsumexp(logits, dim=-1)
    logprobs = logits - log_totals[:, None]
    entropies = -(logprobs.exp() * logprobs).sum(dim=-1)
    values = logits.topk(2, dim=-1).values
    best = logits.argmax(dim=-1)  # topk may order equals either way; argmax gives the first of them
    margins = values[:, 0] - values[:, 1]
    rows = zip(best.tolist(), margins.tolist(), entropies.tolist(), log_totals.tolist(), strict=True)
    return [Figures(*row) for row in rows]


def uniform(seed: int, index: int) -> float:
    """The draw in [0, 1) for token number `index` of an answer: the same alone, in any batch, and after a restart."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


def is_greedy(sampling: Sampling) -> bool:
    """Whether the likeliest token is taken: at temperature 0, and so near it that dividing by it would overflow."""
    return sampling.temperature < GREEDY_BELOW


def is_plain(sampling: Sampling) -> bool:
    """Whether the model's own logits are drawn from: no penalty, no bias."""
    return not (sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias)


def adjust(logits: torch.Tensor, sampling: Sampling, counts: Mapping[int, int]) -> torch.Tensor:
    """A copy of `logits` (V,) with bias and penalties; `counts`: how often the answer has said each token."""
    adjusted = logits.clone()
    if sampling.logit_bias:
        ids, values = zip(*sampling.logit_bias, strict=True)
        adjusted[list(ids)] += torch.tensor(values, device=logits.device)
    if counts:
        numbers = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits.device)
        adjusted[list(counts)] -= sampling.frequency_penalty * numbers + sampling.presence_penalty
    return adjusted


def choice(sampling: Sampling, seed: int, index: int) -> Choice:
    """How token number `index` of an answer is drawn."""
    return Choice(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, uniform(seed, index))


def choose(rows: Sequence[torch.Tensor], choices: Sequence[Choice]) -> list[int]:
    """A token id for each row of logits (V,): temperature, then top-k, then top-p (nucleus, Holtzman et al. 2020), then
    min-p. Of the tokens that are left, sorted by probability if top-k or top-p is set, `uniform` of the mass decides.

    Rows go together: on a GPU, one after the other would take longer than the model's own step.
    """
    chosen = [0] * len(choices)
    is_cut = [choice.top_k > 0 or choice.top_p < 1.0 for choice in choices]
    for is_sorted in {*is_cut}:
        numbers = [number for number, is_so in enumerate(is_cut) if is_so is is_sorted]
        ids = _draw(torch.stack([rows[n] for n in numbers]), [choices[n] for n in numbers], is_sorted)
        for number, token_id in zip(numbers, ids, strict=True):
            chosen[number] = token_id
    return chosen


def _draw(logits: torch.Tensor, choices: Sequence[Choice], is_sorted: bool) -> list[int]:
    """Of logits (R, V), in float64. A token that a filter takes away weighs nothing from then on."""
    if logits.device.type == "mps":
        logits = logits.cpu()  # it has no float64

    def each(values: Iterable[float]) -> torch.Tensor:
        return torch.tensor([*values], dtype=torch.float64, device=logits.device)[:, None]

    exact = logits.double()
    size = exact.shape[-1]
    weights = torch.softmax((exact - exact.amax(-1, True)) / each(c.temperature for c in choices), dim=-1)
    ids = None
    if is_sorted:
        weights, ids = weights.sort(descending=True, stable=True)
        place = torch.arange(size, device=weights.device)
        weights = weights.where(place < each(c.top_k or size for c in choices), 0.0)
        # the first stays however small top_p is; with 1, none goes for what rounding makes of the sum
        reach = each(c.top_p if c.top_p < 1.0 else torch.inf for c in choices) * weights.sum(-1, True)
        weights = weights.where((weights.cumsum(-1) - weights < reach) | (place == 0), 0.0)
    weights = weights.where(weights >= each(c.min_p for c in choices) * weights.amax(-1, True), 0.0)
    reached = weights.cumsum(-1)
    found = torch.searchsorted(reached, each(c.uniform for c in choices) * reached[:, -1:], right=True)
    last = size - 1 - (weights > 0).flip(-1).int().argmax(-1, True)
    found = found.minimum(last)  # rounding can put the draw behind all of them
    tokens: list[int] = (found if ids is None else ids.gather(-1, found))[:, 0].tolist()
    return tokens


def top_choices(logits: torch.Tensor, log_total: float, count: int) -> Sequence[tuple[int, float]]:
    """The `count` likeliest (id, logprob) of (V,), best first."""
    if not count:
        return []
    values, ids = logits.topk(min(count, len(logits)))
    return [(token_id, value - log_total) for token_id, value in zip(ids.tolist(), values.tolist(), strict=True)]
