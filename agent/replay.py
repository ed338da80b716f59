"""The replay anchor: how far the model has moved from the base on rows that must stay. Knows nothing of lessons."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.layout import Layout, lay_out
from agent.row_attention import options
from agent.tokenizer import AnsweredIds

IGNORED = -100  # the label of a position that is not to be learnt


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Rows laid out together (L tokens); `decides` (1, L) marks where an answer token is decided."""

    layout: Layout
    decides: torch.Tensor


class Anchor:
    """KL(base ‖ adapted model) over replay rows, batch after batch, through all rows before any comes again.

    With the output head frozen, the base's last hidden states give its exact distribution for a few kilobytes a row:
    those of rows that a survey has read are known, others are computed when a row is first used, and kept.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[AnsweredIds],
        *,
        batch: int,
        order: random.Random,
        known: Mapping[str, torch.Tensor] | None = None,
        is_text: bool = False,
    ) -> None:
        """`is_text` holds the model to the rows' words only: what others do, to be measured beside."""
        self._model = model  # a PEFT model: its adapter can be switched off
        self._rows = list(rows)
        self._batch = batch
        self._order = order
        self._is_text = is_text
        self._pool: list[int] = []
        self._states = {i: known[key] for i, row in enumerate(rows) if known and (key := row_key(row)) in known}

    def loss(self) -> torch.Tensor:
        """Mean KL in nats over the answer tokens of the next batch; 0 for an untouched model."""
        rows, base = self.next()
        return self.cost(rows, base, hidden_states(self._model.get_base_model(), collate(rows)))

    def next(self) -> tuple[list[AnsweredIds], torch.Tensor]:
        """The next rows, and the base's last hidden states (positions, width) where their answers are decided."""
        while len(self._pool) < self._batch:
            self._pool += self._order.sample(range(len(self._rows)), len(self._rows))
        chosen, self._pool = self._pool[: self._batch], self._pool[self._batch :]
        return [self._rows[i] for i in chosen], self._base(chosen)

    def cost(self, rows: Sequence[AnsweredIds], base: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
        """Mean KL in nats between what the hidden states (positions, width) of these rows say."""
        head = self._model.get_base_model().get_output_embeddings()
        given = torch.log_softmax(head(now).float(), dim=-1)
        if self._is_text:
            words = torch.tensor([token for row in rows for token in (*row.ids[row.answer_at :], IGNORED)])
            return torch.nn.functional.nll_loss(given, words.to(given.device), ignore_index=IGNORED)
        with torch.no_grad():
            wanted = torch.log_softmax(head(base).float(), dim=-1)
        return torch.nn.functional.kl_div(given, wanted, reduction="batchmean", log_target=True)

    def _base(self, chosen: Sequence[int]) -> torch.Tensor:
        model = self._model.get_base_model()
        new = [i for i in chosen if i not in self._states]
        if new:
            rows = [self._rows[i] for i in new]
            with torch.no_grad(), base_alone(self._model):
                states = hidden_states(model, collate(rows))
            parts = states.split([row.num_decided for row in rows])
            self._states.update(zip(new, (part.clone() for part in parts), strict=True))
        return torch.cat([self._states[i] for i in chosen]).to(model.device)


@contextmanager
def base_alone(adapted: Any) -> Iterator[None]:
    """While inside, a PEFT model is its base. PEFT lets everything of an adapter train when it is switched on again;
    what was frozen stays so here.
    """
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    try:
        with adapted.disable_adapter():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def row_key(row: AnsweredIds) -> str:
    """What a row's states are kept under."""
    return hashlib.sha256(json.dumps([row.answer_at, *row.ids]).encode()).hexdigest()


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
        **options(model, layout),
    )
    return output.last_hidden_state[batch.decides.to(device)]
