"""A batch of sequences and their key-value cache: join, advance by one token each, leave. Knows tensors only.

Rows are left-padded to one length, so that a step is a single forward over (rows, 1) tokens. Any decoder that
transformers loads works; this is the reference path.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel


class DecodeBatch:
    """Rows under way, in a fixed order that `select` and `join` keep."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._device = next(model.parameters()).device
        self._cache: DynamicCache | None = None
        self._mask = torch.zeros((0, 0), dtype=torch.long, device=self._device)

    def __len__(self) -> int:
        return int(self._mask.shape[0])

    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts into new last rows, in one pass;
        returns the logits (prompts, V) of their first tokens to come.
        """
        length = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), length), dtype=torch.long, device=self._device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt, device=self._device)
            mask[row, length - len(prompt) :] = 1
        cache = DynamicCache(config=self._model.config)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            self._append(cache, mask)
        return output.logits[:, -1]

    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Advance every row by its token; returns logits (rows, V) of the next ones."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        output = self._model(
            input_ids=torch.tensor(token_ids, device=self._device)[:, None],
            attention_mask=self._mask,
            position_ids=self._mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        return output.logits[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, and drop the padding that none of them needs."""
        if not rows:
            self._cache, self._mask = None, self._mask[:0, :0]
            return
        index = torch.tensor(rows, device=self._device)
        mask = self._mask[index]
        start = int(mask.any(dim=0).long().argmax())
        self._mask = mask[:, start:]
        for layer in self._layers():
            layer.keys = layer.keys[index][:, :, start:].contiguous()
            layer.values = layer.values[index][:, :, start:].contiguous()

    def _layers(self) -> list[Any]:
        return [] if self._cache is None else list(self._cache.layers)

    def _append(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        length = max(self._mask.shape[1], mask.shape[1])
        self._mask = torch.cat([_left_pad(self._mask, length, 1), _left_pad(mask, length, 1)])
        for ours, new in zip(self._layers(), cache.layers, strict=True):
            ours.keys = torch.cat([_left_pad(ours.keys, length, 2), _left_pad(new.keys, length, 2)])
            ours.values = torch.cat([_left_pad(ours.values, length, 2), _left_pad(new.values, length, 2)])


def _left_pad(tensor: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """Zeros in front along `dim` up to `length`."""
    missing = length - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)
