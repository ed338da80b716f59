"""Rows laid end to end behind the beginning they share, so that it is computed once. Knows tokens only.

Chat rows all begin with the same system prompt; with short questions and answers it is nearly half of them. A mask lets
each token see the shared beginning and its own row only, so every row counts exactly as if it stood alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Layout:
    """`ids`, `positions` (1, L); `sees` (1, 1, L, L): where a token may look; `num_shared` first tokens are shared,
    and behind them stand rows of `lengths` tokens.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor
    num_shared: int
    lengths: tuple[int, ...]

    def spread(self, values: Sequence[Sequence[int]], shared: int) -> torch.Tensor:
        """Per-token values of each row in the places of its tokens (1, L); the shared tokens get `shared`."""
        flat = [shared] * self.num_shared
        for row in values:
            flat += row[self.num_shared :]
        return torch.tensor([flat])


def lay_out(rows: Sequence[Sequence[int]], max_shared: int) -> Layout:
    """Lay out token rows; at most `max_shared` first tokens are shared, fewer where the rows differ earlier."""
    shared = _num_shared(rows, max_shared)
    ids, positions, owners = list(rows[0][:shared]), list(range(shared)), [0] * shared
    for owner, row in enumerate(rows, start=1):
        ids += row[shared:]
        positions += range(shared, len(row))
        owners += [owner] * (len(row) - shared)
    owner_of, order = torch.tensor(owners), torch.arange(len(ids))
    sees = ((owner_of[:, None] == owner_of[None]) | (owner_of[None] == 0)) & (order[None] <= order[:, None])
    return Layout(
        torch.tensor([ids]),
        torch.tensor([positions]),
        sees[None, None],
        shared,
        tuple(len(row) - shared for row in rows),
    )


def _num_shared(rows: Sequence[Sequence[int]], limit: int) -> int:
    first = rows[0]
    return next((place for place in range(limit) if any(row[place] != first[place] for row in rows)), limit)
