"""Replay rows as tensors: tokens, and the base's last hidden states where its answer is decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.tokenizer import Tokenizer

BATCH = 8


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One row: token ids, where the answer begins, and hidden states (answer length + 1, width) of the base."""

    ids: tuple[int, ...]
    answer_at: int
    hidden: torch.Tensor


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Right-padded rows: ids and mask (B, L), and which positions decide an answer token (B, L)."""

    ids: torch.Tensor
    mask: torch.Tensor
    decides: torch.Tensor


def prepare(
    model: PreTrainedModel, tokenizer: Tokenizer, rows: Sequence[dict[str, Any]], max_answer_tokens: int
) -> list[ReplayRow]:
    """Tokenise the rows and run the base over them once. `model` must still be the base."""
    bare = [_tokens(tokenizer, row, max_answer_tokens) for row in rows]
    prepared: list[ReplayRow] = []
    for start in range(0, len(bare), BATCH):
        chunk = bare[start : start + BATCH]
        batch = collate(chunk, model.device)
        with torch.no_grad():
            states = hidden_states(model, batch)
        parts = states.split([len(row.ids) - row.answer_at + 1 for row in chunk])
        prepared += [ReplayRow(row.ids, row.answer_at, part.clone()) for row, part in zip(chunk, parts, strict=True)]
    return prepared


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
    return ReplayRow((*prompt, *answer), len(prompt), torch.empty(0))
