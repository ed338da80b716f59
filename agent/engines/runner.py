"""What an engine asks of a model: read pieces of sequences into the paged cache, give logits and figures.

A runner knows nothing of requests, text or time. Its cache is `num_blocks` blocks of BLOCK tokens, and which block
belongs to whom is the caller's affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

BLOCK = 16  # tokens a block of the key-value cache


@dataclass(frozen=True, slots=True)
class Piece:
    """The next tokens of one sequence, of which `position` are in the cache already.

    `blocks` hold the sequence in order, these tokens included. With `is_whole` the sequence ends here for now, and
    the logits of what comes next are wanted; with `is_scored` those after each of its tokens.
    """

    ids: Sequence[int]
    position: int
    blocks: Sequence[int]
    is_whole: bool
    is_scored: bool = False

    @property
    def num_wanted(self) -> int:
        """After how many of its last tokens logits are wanted."""
        return len(self.ids) if self.is_scored else int(self.is_whole)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one distribution over the next token, as the model gave it (nats).

    A token's log-probability is its logit less `log_total`.
    """

    best: int
    margin: float
    entropy: float
    log_total: float


@dataclass(frozen=True, slots=True)
class Next:
    """What may come next, a row for each wanted place, in the order of the pieces. Valid until the next `run`."""

    logits: torch.Tensor  # (rows, V) float32
    figures: Sequence[Figures]


@dataclass(frozen=True, slots=True)
class Choice:
    """How to draw a token from one row of logits: temperature > 0, then top-k (0: all), top-p, min-p;
    `uniform` in [0, 1) says which.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    uniform: float


class Runner(Protocol):
    """One model, with its cache."""

    num_blocks: int
    vocabulary_size: int

    def run(self, pieces: Sequence[Piece]) -> Next:
        """Read the pieces. Raises what torch raises when the model cannot."""

    def choose(self, rows: Sequence[torch.Tensor], choices: Sequence[Choice]) -> list[int]:
        """A token id for each row of logits (V,), float32."""

    def use_threads(self, count: int) -> None:
        """Compute on so many CPU threads from now on, where this runner has threads of its own. Between runs only."""

    def close(self) -> None:
        """Give the memory back."""
