"""The replay anchor: how far the model has moved from the base on rows that must stay. Knows nothing of lessons."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.layout import Layout, lay_out
from agent.tokenizer import AnsweredIds


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Rows laid out together (L tokens); `decides` (1, L) marks where an answer token is decided."""

    layout: Layout
    decides: torch.Tensor


class Anchor:
    """KL(base ‖ adapted model) over replay rows, batch after batch, through all rows before any comes again.

    With the output head frozen, the base's last hidden states give its exact distribution for a few kilobytes a row, so
    they are computed when a row is first used and kept.
    """

    def __init__(self, model: Any, rows: Sequence[AnsweredIds], *, batch: int, order: random.Random) -> None:
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
        now = hidden_states(model, collate([self._rows[i] for i in chosen]))
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
                states = hidden_states(model, collate(rows))
            parts = states.split([len(row.ids) - row.answer_at + 1 for row in rows])
            self._base_states.update(zip(new, (part.clone() for part in parts), strict=True))
        return torch.cat([self._base_states[i] for i in chosen])


def collate(rows: Sequence[AnsweredIds]) -> ReplayBatch:
    """Lay the rows out; what all have in common ends before any answer is decided."""
    layout = lay_out([row.ids for row in rows], min(row.answer_at for row in rows) - 1)
    marks = [[int(place >= row.answer_at - 1) for place in range(len(row.ids))] for row in rows]
    return ReplayBatch(layout, layout.spread(marks, 0).bool())


def hidden_states(model: PreTrainedModel, batch: ReplayBatch) -> torch.Tensor:
    """Last hidden states (positions, width) where an answer token is decided, row after row."""
    decoder: Any = model.get_decoder()
    layout, device = batch.layout, model.device
    output = decoder(
        input_ids=layout.ids.to(device),
        attention_mask=layout.sees.to(device),
        position_ids=layout.positions.to(device),
        use_cache=False,
    )
    return output.last_hidden_state[batch.decides.to(device)]
