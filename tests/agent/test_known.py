"""What is said already before it is taught, and how far an adapter moved on what it was taught."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.known import TOGETHER, moved, says_already
from agent.tokenizer import AnsweredIds, Tokenizer


def row(tokenizer: Tokenizer, question: str, answer: str = "") -> AnsweredIds:
    return tokenizer.answered_ids([{"role": "user", "content": question}], answer or f"It is {question}")


def greedy(model: PreTrainedModel, of: AnsweredIds, count: int = 6) -> AnsweredIds:
    """The same question with the model's own answer."""
    ids = list(of.ids[: of.answer_at])
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return AnsweredIds(tuple(ids), of.answer_at)


def test_only_the_models_own_likeliest_answer_is_said_already(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    asked = [row(tokenizer, f"question {number}?") for number in range(TOGETHER + 2)]
    own = [greedy(base, one) for one in asked]
    last = AnsweredIds((*own[0].ids[:-1], (own[0].ids[-1] + 1) % 250), own[0].answer_at)
    assert says_already(base, [*own, asked[0], last]) == [True] * len(own) + [False, False]
    assert says_already(base, []) == []


def test_an_adapter_has_not_moved_before_it_is_trained_and_moves_with_it(
    base: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    rows = [row(tokenizer, f"question {number}?") for number in range(TOGETHER + 2)]
    adapted: Any = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear"))
    assert moved(adapted, rows) == pytest.approx(0.0, abs=1e-6)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.ones_like(parameter)
    with torch.no_grad():
        given, before = torch.zeros(()), 0
        for one in rows:
            after = adapted(input_ids=torch.tensor([one.ids])).logits[0, one.answer_at - 1 :].log_softmax(-1)
            was = base(input_ids=torch.tensor([one.ids])).logits[0, one.answer_at - 1 :].log_softmax(-1)
            given, before = given + (was.exp() * (was - after)).sum(), before + len(was)
    assert moved(adapted, rows) == pytest.approx(float(given) / before, rel=1e-4)
    assert moved(adapted, []) == 0.0
