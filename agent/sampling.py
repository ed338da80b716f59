"""Logits to a chosen token and its figures. Knows nothing of requests' text or of the network."""

from collections.abc import Sequence

import torch

from agent.engine import Sampling


def figures(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (B, V) and entropies in nats (B,) of the model's own distribution. `logits`: (B, V)."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    return logprobs, -(logprobs.exp() * logprobs).sum(dim=-1)


def choose(logprobs: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """One token id from `logprobs` (V,): greedy at temperature 0, else temperature, then nucleus (top-p) sampling."""
    if sampling.temperature == 0.0:
        return int(logprobs.argmax())
    probabilities = torch.softmax(logprobs / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        probabilities = nucleus(probabilities, sampling.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of likeliest tokens whose mass reaches `top_p` (Holtzman et al. 2020); zero the rest."""
    ranked, order = probabilities.sort(descending=True)
    is_beyond = ranked.cumsum(dim=-1) - ranked >= top_p
    kept = torch.zeros_like(probabilities).scatter(-1, order, ranked.masked_fill(is_beyond, 0.0))
    return kept / kept.sum()


def top_choices(logprobs: torch.Tensor, count: int) -> Sequence[tuple[int, float]]:
    """The `count` likeliest (id, logprob) of (V,), best first."""
    values, ids = logprobs.topk(count)
    return list(zip(ids.tolist(), values.tolist(), strict=True))
