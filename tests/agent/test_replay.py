"""Replay: hidden states that decide answer tokens, and the anchor they make."""

import copy
import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.replay import Anchor, collate, hidden_states, row_key
from agent.tokenizer import AnsweredIds, Tokenizer

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hi"}], "answer": "Hello, how are you?"},
    {"messages": [{"role": "user", "content": "What is water made of?"}], "answer": "H2O"},
    {"messages": [{"role": "user", "content": "Why?"}], "answer": "Because it is a long story, they say."},
]


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return [tokenizer.answered_ids(row["messages"], row["answer"], 8) for row in ROWS]


@pytest.fixture
def adapted(base: PreTrainedModel) -> Any:
    """A fresh adapter on a copy of the base: as training begins."""
    torch.manual_seed(0)
    return get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


def move(adapted: Any, by: float) -> None:
    """As training would: the adapter's B, zero at first, becomes something."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * by


def anchored(adapted: Any, rows: list[AnsweredIds], batch: int = 3) -> Anchor:
    return Anchor(adapted, rows, batch=batch, order=random.Random(3))


def test_hidden_states_times_the_head_are_the_models_logits(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    with torch.inference_mode():
        states = hidden_states(base, collate(rows))
        ours = base.get_output_embeddings()(states)
        theirs = torch.cat([base(input_ids=torch.tensor([row.ids])).logits[0, row.answer_at - 1 :] for row in rows])
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_standing_together_does_not_change_hidden_states(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    with torch.inference_mode():
        together = hidden_states(base, collate(rows))
        alone = torch.cat([hidden_states(base, collate([row])) for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_anchor_of_the_untouched_base_is_nothing(adapted: Any, rows: list[AnsweredIds]) -> None:
    assert float(anchored(adapted, rows).loss().detach()) == pytest.approx(0.0, abs=1e-6)


def test_the_anchor_grows_as_the_model_moves_away(adapted: Any, rows: list[AnsweredIds]) -> None:
    anchor = anchored(adapted, rows)
    losses = []
    for by in (0.0, 0.02, 0.2):
        move(adapted, by)
        losses.append(float(anchor.loss().detach()))
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert 1e-6 < losses[1] < losses[2]


def test_the_anchor_holds_to_the_base_also_where_a_row_is_first_met_after_the_model_moved(
    adapted: Any, rows: list[AnsweredIds]
) -> None:
    early = anchored(adapted, rows)
    early.loss()
    move(adapted, 0.1)
    late = anchored(adapted, rows)
    assert float(late.loss().detach()) == pytest.approx(float(early.loss().detach()), rel=1e-4)


def test_the_anchor_is_the_mean_divergence_from_the_base(
    base: PreTrainedModel, adapted: Any, rows: list[AnsweredIds]
) -> None:
    move(adapted, 0.1)
    divergences: list[float] = []
    for row in rows:
        ids, start = torch.tensor([row.ids]), row.answer_at - 1
        with torch.inference_mode():
            wanted = torch.log_softmax(base(input_ids=ids).logits[0, start:], dim=-1)
            given = torch.log_softmax(adapted(input_ids=ids).logits[0, start:], dim=-1)
        divergences += (wanted.exp() * (wanted - given)).sum(-1).tolist()
    expected = sum(divergences) / len(divergences)
    assert float(anchored(adapted, rows).loss().detach()) == pytest.approx(expected, rel=1e-3)


def test_the_anchor_pulls_on_the_adapter_only(adapted: Any, rows: list[AnsweredIds]) -> None:
    move(adapted, 0.1)
    anchored(adapted, rows).loss().backward()
    pulled = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert pulled == {name for name, _ in adapted.named_parameters() if "lora_" in name}


def test_every_row_comes_once_before_any_comes_again(adapted: Any, rows: list[AnsweredIds]) -> None:
    anchor = anchored(adapted, rows, batch=1)
    first, second = ([anchor.next()[0][0] for _ in range(3)] for _ in range(2))
    assert set(first) == set(second) == set(rows)


def test_a_batch_larger_than_the_rows_takes_some_of_them_again(adapted: Any, rows: list[AnsweredIds]) -> None:
    anchor = anchored(adapted, rows, batch=7)
    assert set(anchor.next()[0]) == set(rows)
    assert float(anchor.loss().detach()) == pytest.approx(0.0, abs=1e-6)


def test_states_that_are_known_are_not_worked_out_again(adapted: Any, rows: list[AnsweredIds]) -> None:
    known = {row_key(rows[1]): torch.full((rows[1].num_decided, 64), 7.0)}
    anchor = Anchor(adapted, rows, batch=1, order=random.Random(3), known=known)
    drawn: dict[AnsweredIds, torch.Tensor] = {}
    for _ in rows:
        batch, base = anchor.next()
        drawn[batch[0]] = base
    assert bool((drawn[rows[1]] == 7.0).all())
    assert not any(bool((drawn[row] == 7.0).any()) for row in (rows[0], rows[2]))


def test_held_to_the_words_only_the_cost_is_the_loss_on_them(adapted: Any, rows: list[AnsweredIds]) -> None:
    anchor = Anchor(adapted, rows[:1], batch=1, order=random.Random(3), is_text=True)
    ids, start = torch.tensor([rows[0].ids]), rows[0].answer_at
    with torch.no_grad():
        logits = adapted(input_ids=ids).logits[0, start - 1 : -1]
        assert float(anchor.loss()) == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, ids[0, start:])), rel=1e-4
        )


def test_what_was_frozen_stays_frozen_when_the_base_has_spoken(adapted: Any, rows: list[AnsweredIds]) -> None:
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    anchored(adapted, rows).loss()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in adapted.named_parameters() if "lora_B" in name}
