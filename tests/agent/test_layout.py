"""Rows laid end to end: each counts exactly as if it stood alone."""

import copy
from itertools import pairwise
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from agent.layout import lay_out
from agent.replay import IGNORED, collate, hidden_states
from agent.tokenizer import AnsweredIds

token_rows = st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=8), min_size=1, max_size=4)


ROWS = [
    AnsweredIds((1, 40, 41, 42, 50, 60, 61, 2), 5),
    AnsweredIds((1, 40, 41, 43, 62, 2), 4),
    AnsweredIds((1, 40, 41, 42, 50, 51, 63, 64, 65, 2), 6),
]


@settings(deadline=None)
@given(rows=token_rows, limit=st.integers(0, 3))
def test_each_token_sees_the_tokens_before_it_in_its_own_row_and_no_other(rows: list[list[int]], limit: int) -> None:
    layout = lay_out(rows, limit)
    ids, places, sees = layout.ids[0].tolist(), layout.positions[0].tolist(), layout.sees[0, 0]
    start = layout.num_shared
    for row in rows:
        end = start + len(row) - layout.num_shared
        for index in range(start, end):
            seen = [number for number in range(len(ids)) if sees[index, number]]
            assert [ids[number] for number in seen] == row[: places[index] + 1]
            assert [places[number] for number in seen] == list(range(places[index] + 1))
        start = end
    assert start == len(ids)


@settings(deadline=None)
@given(rows=token_rows, limit=st.integers(0, 3))
def test_what_is_shared_is_as_long_as_the_rows_agree_and_no_longer_than_allowed(
    rows: list[list[int]], limit: int
) -> None:
    shared = lay_out(rows, limit).num_shared
    assert all(one[:shared] == other[:shared] for one, other in pairwise(rows))
    assert shared == limit or len({row[shared] for row in rows}) > 1


def test_a_single_row_is_laid_out_as_it_is() -> None:
    layout = lay_out([[5, 6, 7]], 1)
    assert layout.ids.tolist() == [[5, 6, 7]]
    assert layout.positions.tolist() == [[0, 1, 2]]
    assert torch.equal(layout.sees[0, 0], torch.ones(3, 3).tril().bool())


def test_lessons_laid_out_together_give_the_loss_and_the_pull_of_lessons_padded_side_by_side(
    base: PreTrainedModel,
) -> None:
    length = max(len(row.ids) for row in ROWS)
    padded = {
        "input_ids": torch.tensor([[*row.ids, *[0] * (length - len(row.ids))] for row in ROWS]),
        "labels": torch.tensor(
            [
                [IGNORED] * row.answer_at + [*row.ids[row.answer_at :]] + [IGNORED] * (length - len(row.ids))
                for row in ROWS
            ]
        ),
        "attention_mask": torch.tensor([[int(n < len(row.ids)) for n in range(length)] for row in ROWS]),
    }
    losses, pulls = [], []
    for is_together in (False, True):
        model = copy.deepcopy(base).requires_grad_(True)
        loss = together(model) if is_together else model(**padded).loss
        loss.backward()
        losses.append(loss.detach())
        pulls.append(model.get_parameter("model.layers.0.self_attn.q_proj.weight").grad)
    assert torch.allclose(losses[0], losses[1], atol=1e-4)
    assert torch.allclose(pulls[0], pulls[1], atol=1e-3)


def together(model: Any) -> torch.Tensor:
    logits = model.get_output_embeddings()(hidden_states(model, collate(ROWS)))
    targets = torch.tensor([token for row in ROWS for token in (*row.ids[row.answer_at :], IGNORED)])
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)
