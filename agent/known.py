"""How the base and an adapter stand to rows before and after they are taught: what is said already, how far it moved.

Going through rows in order, without gradients.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.replay import IGNORED, base_alone, collate, hidden_states
from agent.tokenizer import AnsweredIds

TOGETHER = 12


def says_already(model: PreTrainedModel, rows: Sequence[AnsweredIds]) -> list[bool]:
    """Of each row, whether the model's likeliest answer is this one, to its end."""
    head, found = model.get_output_embeddings(), list[bool]()
    for group in _groups(rows):
        with torch.no_grad():
            likeliest = head(hidden_states(model, collate(group))).argmax(dim=-1).cpu()
        for row, said in zip(group, likeliest.split([row.num_decided for row in group]), strict=True):
            wanted = torch.tensor([*row.ids[row.answer_at :], IGNORED])
            found.append(bool(((said == wanted) | (wanted == IGNORED)).all()))
    return found


def moved(adapted: Any, rows: Sequence[AnsweredIds]) -> float:
    """KL(base ‖ adapted) in nats a token, over the answers of these rows. On what is taught it foretells what is
    forgotten elsewhere (Shenfeld et al. 2025, "RL's Razor"). 0 without rows.
    """
    base = adapted.get_base_model()
    head = base.get_output_embeddings()
    total, count = 0.0, 0
    for group in _groups(rows):
        batch = collate(group)
        with torch.no_grad():
            given = torch.log_softmax(head(hidden_states(base, batch)).float(), dim=-1)
            with base_alone(adapted):
                before = torch.log_softmax(head(hidden_states(base, batch)).float(), dim=-1)
        total += float(torch.nn.functional.kl_div(given, before, reduction="sum", log_target=True))
        count += len(given)
    return total / count if count else 0.0


def _groups(rows: Sequence[AnsweredIds]) -> Iterator[Sequence[AnsweredIds]]:
    return (rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER))
