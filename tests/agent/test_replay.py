"""Replay: hidden states that decide answer tokens, and the anchor they make."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent.methods.sft import _rounds, anchor_loss
from agent.model import merge_adapter
from agent.replay import ReplayRow, collate, hidden_states, prepare
from agent.tokenizer import Tokenizer
from tests.fakes import adapter_files

ROWS = [
    {"messages": [{"role": "user", "content": "hi"}], "answer": "Hello, how are you?"},
    {"messages": [{"role": "user", "content": "What is water made of?"}], "answer": "H2O"},
    {"messages": [{"role": "user", "content": "Why?"}], "answer": "Because it is a long story, they say."},
]


@pytest.fixture(scope="module")
def rows(base: PreTrainedModel, tokenizer: Tokenizer) -> list[ReplayRow]:
    return prepare(base, tokenizer, ROWS, max_answer_tokens=8)


def test_a_row_is_the_prompt_and_the_first_tokens_of_the_answer(rows: list[ReplayRow], tokenizer: Tokenizer) -> None:
    for row, source in zip(rows, ROWS, strict=True):
        answer = [*tokenizer.ids(str(source["answer"])), *tokenizer.eos_ids][:8]
        assert list(row.ids) == tokenizer.chat_ids(source["messages"]) + answer
        assert row.hidden.shape[0] == len(answer) + 1


def test_a_short_answer_ends_with_the_end_of_the_turn(rows: list[ReplayRow], tokenizer: Tokenizer) -> None:
    assert rows[1].ids[-1] in tokenizer.eos_ids


def test_hidden_states_times_the_head_are_the_models_logits(base: PreTrainedModel, rows: list[ReplayRow]) -> None:
    for row in rows:
        with torch.inference_mode():
            logits = base(input_ids=torch.tensor([row.ids])).logits[0, row.answer_at - 1 :]
            ours = base.get_output_embeddings()(row.hidden)
        assert torch.allclose(ours, logits, atol=1e-4)


def test_padding_does_not_change_hidden_states(base: PreTrainedModel, rows: list[ReplayRow]) -> None:
    with torch.inference_mode():
        together = hidden_states(base, collate(rows, base.device))
        alone = torch.cat([hidden_states(base, collate([row], base.device)) for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_anchor_of_the_untouched_base_is_nothing(base: PreTrainedModel, rows: list[ReplayRow]) -> None:
    assert float(anchor_loss(base, rows)) == pytest.approx(0.0, abs=1e-6)


def test_the_anchor_of_a_changed_model_is_more_than_nothing(base: PreTrainedModel, rows: list[ReplayRow]) -> None:
    slightly = float(anchor_loss(merge_adapter(base, adapter_files(scale=0.1)), rows))
    much = float(anchor_loss(merge_adapter(base, adapter_files(scale=0.5)), rows))
    assert 1e-6 < slightly < much


def test_the_anchor_is_the_mean_divergence_from_the_base(base: PreTrainedModel, rows: list[ReplayRow]) -> None:
    changed = merge_adapter(base, adapter_files())
    divergences: list[float] = []
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.inference_mode():
            wanted, given = (
                torch.log_softmax(m(input_ids=ids).logits[0, row.answer_at - 1 :], -1) for m in (base, changed)
            )
        divergences += (wanted.exp() * (wanted - given)).sum(-1).tolist()
    assert float(anchor_loss(changed, rows)) == pytest.approx(sum(divergences) / len(divergences), rel=1e-3)


def test_more_rows_than_a_batch_are_prepared_in_order(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    many: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": str(n)}], "answer": "x" * (n + 1)} for n in range(11)
    ]
    prepared = prepare(base, tokenizer, many, max_answer_tokens=28)
    assert [len(row.ids) - row.answer_at for row in prepared] == [n + 2 for n in range(11)]


def test_every_row_comes_once_before_any_comes_again(rows: list[ReplayRow]) -> None:
    import random

    batches = _rounds(rows, 1, random.Random(3))
    first, second = ([next(batches)[0].ids for _ in range(3)] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(row.ids for row in rows)
