"""The reference runner: any decoder that transformers loads, on any device, through its own forward pass.

Its keys and values live in the paged cache like everybody's; for a step the sequences' pages are laid side by side,
left-padded. Slow where operations are small, and simple: what faster runners are measured against. Beside other
sequences the last bits of a result can differ from those alone, since torch chooses its kernels by shape.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from agent.engines.runner import BLOCK, Choice, Next, Piece
from agent.sampling import choose, figures


class ReferenceRunner:
    """Runs a transformers model over the paged cache."""

    def __init__(self, model: PreTrainedModel, num_blocks: int = 1024) -> None:
        self.num_blocks = num_blocks
        self.vocabulary_size = int(model.config.vocab_size)
        self._model: Any = model
        self._device = next(model.parameters()).device
        self._pages: list[tuple[torch.Tensor, torch.Tensor]] = []  # a layer: keys, values; (blocks * BLOCK, heads, dim)

    def run(self, pieces: Sequence[Piece]) -> Next:
        rows: dict[int, torch.Tensor] = {}  # (wanted, V), by piece
        order = sorted(range(len(pieces)), key=lambda number: len(pieces[number].ids))
        for _, group in groupby(order, key=lambda number: len(pieces[number].ids)):
            numbers = list(group)
            logits = self._forward([pieces[number] for number in numbers])
            rows |= {n: row[len(row) - pieces[n].num_wanted :] for n, row in zip(numbers, logits, strict=True)}
        wanted = torch.cat([rows[number] for number in range(len(pieces))]).float()
        return Next(wanted, figures(wanted))

    def choose(self, rows: Sequence[torch.Tensor], choices: Sequence[Choice]) -> list[int]:
        return choose(rows, choices)

    def use_threads(self, count: int) -> None:
        """It shares torch's threads with the process."""

    def close(self) -> None:
        self._pages = []

    def _forward(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Read pieces of one length; returns the logits (pieces, wanted, V) after their last tokens."""
        past, length = max(piece.position for piece in pieces), len(pieces[0].ids)
        positions = torch.tensor([piece.position for piece in pieces], device=self._device)
        mask = torch.arange(past + length, device=self._device) >= (past - positions)[:, None]
        cache = self._gather(pieces, past) if past else DynamicCache()
        output = self._model(
            input_ids=torch.tensor([list(piece.ids) for piece in pieces], device=self._device),
            attention_mask=mask.long(),
            position_ids=positions[:, None] + torch.arange(length, device=self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=max(1, *(piece.num_wanted for piece in pieces)),
        )
        self._scatter(pieces, cache, length)
        logits: torch.Tensor = output.logits
        return logits

    def _gather(self, pieces: Sequence[Piece], past: int) -> DynamicCache:
        """What is in the pages of these sequences, left-padded to `past` tokens."""
        slots = torch.zeros((len(pieces), past), dtype=torch.long)
        for row, piece in enumerate(pieces):
            slots[row, past - piece.position :] = _slots(piece.blocks, 0, piece.position)
        slots = slots.to(self._device)
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._pages):
            cache.update(keys[slots].transpose(1, 2), values[slots].transpose(1, 2), number)
        return cache

    def _scatter(self, pieces: Sequence[Piece], cache: DynamicCache, length: int) -> None:
        """Put the last `length` tokens' keys and values into their pages."""
        slots = torch.cat([_slots(piece.blocks, piece.position, length) for piece in pieces]).to(self._device)
        for number, layer in enumerate(cache.layers):
            if len(self._pages) <= number:
                self._pages.append((self._empty(layer.keys), self._empty(layer.values)))
            for page, new in zip(self._pages[number], (layer.keys, layer.values), strict=True):
                page[slots] = new[:, :, -length:].transpose(1, 2).flatten(0, 1)

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros((self.num_blocks * BLOCK, like.shape[1], like.shape[3]))


def _slots(blocks: Sequence[int], start: int, count: int) -> torch.Tensor:
    """Where tokens [start, start + count) of a sequence lie."""
    at = torch.arange(start, start + count)
    return torch.tensor(blocks)[at // BLOCK] * BLOCK + at % BLOCK
