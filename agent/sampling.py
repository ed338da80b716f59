"""Logits to a chosen token and its figures, in torch. Knows nothing of requests' text or of the network.

The native kernels do the same faster (`agent/kernels/head.h`); tests hold them to this.
"""

import hashlib
from collections.abc import Mapping, Sequence

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


def choose(logits: torch.Tensor, choice: Choice) -> int:
    """One token id from `logits` (V,): temperature, then top-k, then top-p (nucleus, Holtzman et al. 2020), then min-p.

    Of the tokens that are left, sorted by probability if any filter is set, `choice.uniform` of the mass decides.
    """
    exact = logits.double()
    weights = torch.softmax((exact - exact.max()) / choice.temperature, dim=-1)
    is_filtered = choice.top_k > 0 or choice.top_p < 1.0
    ids = torch.arange(len(weights), device=weights.device)
    if is_filtered:
        weights, ids = weights.sort(descending=True, stable=True)
    if choice.top_k > 0:
        weights, ids = weights[: choice.top_k], ids[: choice.top_k]
    if choice.top_p < 1.0:
        is_beyond = weights.cumsum(dim=-1) - weights >= choice.top_p * weights.sum()
        is_beyond[0] = False
        weights, ids = weights[~is_beyond], ids[~is_beyond]
    is_likely = weights >= choice.min_p * weights.max()
    weights, ids = weights[is_likely], ids[is_likely]
    reached = weights.cumsum(dim=-1)
    index = int(torch.searchsorted(reached, choice.uniform * reached[-1], right=True))
    return int(ids[min(index, len(ids) - 1)])


def top_choices(logits: torch.Tensor, log_total: float, count: int) -> Sequence[tuple[int, float]]:
    """The `count` likeliest (id, logprob) of (V,), best first."""
    if not count:
        return []
    values, ids = logits.topk(min(count, len(logits)))
    return [(token_id, value - log_total) for token_id, value in zip(ids.tolist(), values.tolist(), strict=True)]
