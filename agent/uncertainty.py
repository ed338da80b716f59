"""Turns per-token numbers into one score per answer, by name. Knows nothing of text or people.

All of these are free: serving has paid for the trace. Higher always means less sure; an answer without tokens has no
score. What needs further answers is in `agent.consistency`. How well each tells wrong answers from right ones on the
default model: `make bench-detection`. The smallest margin is not among them: the trace does not hold margins, and it is
the worst of those that were measured.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence

from store.records import TokenTrace

PEAKS = 3  # one token can be unsure of nothing but wording
EARLY_TOKENS = 12  # a short answer, or how a long one begins

Signal = Callable[[Sequence[TokenTrace]], float | None]


def mean_entropy(tokens: Sequence[TokenTrace]) -> float | None:
    """Mean entropy over the answer's tokens, in nats; None for an answer without tokens (missing is not zero)."""
    return sum(token.entropy for token in tokens) / len(tokens) if tokens else None


def peak_entropy(tokens: Sequence[TokenTrace]) -> float | None:
    """Mean of the answer's three highest entropies, in nats. An answer that ends in repeating itself is sure of most of
    its tokens; that does not make what it began with less of a guess.
    """
    highest = heapq.nlargest(PEAKS, (token.entropy for token in tokens))
    return sum(highest) / len(highest) if highest else None


def mean_nll(tokens: Sequence[TokenTrace]) -> float | None:
    """Mean negative log-likelihood of the chosen tokens, in nats: the logarithm of the perplexity."""
    return -sum(token.logprob for token in tokens) / len(tokens) if tokens else None


def sum_nll(tokens: Sequence[TokenTrace]) -> float | None:
    """Negative log-likelihood of the whole answer, in nats; of a greedy one G-NLL (Aichberger et al. 2024)."""
    return -sum(token.logprob for token in tokens) if tokens else None


def early_nll(tokens: Sequence[TokenTrace]) -> float | None:
    """The same of the first twelve tokens: without what an answer goes on to say once it has been given."""
    return sum_nll(tokens[:EARLY_TOKENS])


def max_nll(tokens: Sequence[TokenTrace]) -> float | None:
    """Negative log-likelihood of the least likely token, in nats."""
    return max((-token.logprob for token in tokens), default=None)


def length(tokens: Sequence[TokenTrace]) -> float | None:
    """How many tokens. The control: what tells wrong from right no better than this has found nothing."""
    return float(len(tokens)) if tokens else None


SIGNALS: Mapping[str, Signal] = {
    one.__name__: one for one in (mean_entropy, peak_entropy, mean_nll, sum_nll, early_nll, max_nll, length)
}
DEFAULT_SIGNAL = "peak_entropy"  # above the mean in every suite it was measured on, and surely above the length


def signal(name: str) -> Signal:
    """The signal of that name; ValueError names those there are."""
    try:
        return SIGNALS[name]
    except KeyError:
        raise ValueError(f"no uncertainty signal {name!r}; there are {', '.join(SIGNALS)}") from None
