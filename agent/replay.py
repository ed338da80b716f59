"""The replay anchor: how far the model has moved from the base on rows that must stay. Knows nothing of lessons."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One row: token ids, and where the answer begins."""

    ids: tuple[int, ...]
    answer_at: int


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Right-padded rows: ids and mask (B, L), and which positions decide an answer token (B, L)."""

    ids: torch.Tensor
    mask: torch.Tensor
    decides: torch.Tensor


def tokenise(tokenizer: Tokenizer, rows: Sequence[dict[str, Any]], max_answer_tokens: int) -> list[ReplayRow]:
    """Rows of a dataset as token ids, their answers cut to the tokens that matter."""
    return [_tokens(tokenizer, row, max_answer_tokens) for row in rows]


class Anchor:
    """KL(base ‖ adapted model) over replay rows, batch after batch, through all rows before any comes again.

    With the output head frozen, the base's last hidden states give its exact distribution for a few kilobytes a row, so
    they are computed when a row is first used and kept.
    """

    def __init__(self, model: Any, rows: Sequence[ReplayRow], *, batch: int, order: random.Random) -> None:
        self._model = model  # a PEFT model: its adapter can be switched off
        self._rows = list(rows)
        self._batch = batch
        self._order = order
        self._pool: list[int] = []
        self._base_states: dict[int, torch.Tensor] = {}

    def loss(self) -> torch.Tensor:
        """Mean KL in nats over the answer tokens of the next batch; 0 for an untouched model."""
        chosen = self._next()
        base = self._base(chosen)
        model = self._model.get_base_model()
        now = hidden_states(model, collate([self._rows[i] for i in chosen], model.device))
        head = model.get_output_embeddings()
        with torch.no_grad():
            wanted = torch.log_softmax(head(base).float(), dim=-1)
        given = torch.log_softmax(head(now).float(), dim=-1)
        return torch.nn.functional.kl_div(given, wanted, reduction="batchmean", log_target=True)

    def _next(self) -> list[int]:
        while len(self._pool) < self._batch:
            self._pool += self._order.sample(range(len(self._rows)), len(self._rows))
        chosen, self._pool = self._pool[: self._batch], self._pool[self._batch :]
        return chosen

    def _base(self, chosen: Sequence[int]) -> torch.Tensor:
        new = [i for i in chosen if i not in self._base_states]
        if new:
            rows = [self._rows[i] for i in new]
            with torch.no_grad(), self._model.disable_adapter():
                model = self._model.get_base_model()
                states = hidden_states(model, collate(rows, model.device))
            parts = states.split([len(row.ids) - row.answer_at + 1 for row in rows])
            self._base_states.update(zip(new, (part.clone() for part in parts), strict=True))
        return torch.cat([self._base_states[i] for i in chosen])


def collate(rows: Sequence[ReplayRow], device: torch.device) -> ReplayBatch:
    """Right-pad to one length; the padding is masked out, so its value does not matter."""
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    decides = torch.zeros_like(ids, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        mask[number, : len(row.ids)] = 1
        decides[number, row.answer_at - 1 : len(row.ids)] = True
    return ReplayBatch(ids.to(device), mask.to(device), decides.to(device))


def hidden_states(model: PreTrainedModel, batch: ReplayBatch) -> torch.Tensor:
    """Last hidden states (positions, width) where an answer token is decided, row after row."""
    decoder: Any = model.get_decoder()
    output = decoder(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    return output.last_hidden_state[batch.decides]


def _tokens(tokenizer: Tokenizer, row: dict[str, Any], max_answer_tokens: int) -> ReplayRow:
    prompt = tokenizer.chat_ids(row["messages"])
    answer = [*tokenizer.ids(row["answer"]), *tokenizer.eos_ids][:max_answer_tokens]
    return ReplayRow((*prompt, *answer), len(prompt))
