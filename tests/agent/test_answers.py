"""Many requests to one engine at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent.answers import greedy_answers, mean_nll
from agent.engines.embedded import EmbeddedEngine
from agent.engines.reference import ReferenceRunner
from agent.model import merge_adapter
from agent.tokenizer import Tokenizer
from tests.fakes import adapter_files

QUESTIONS = ["hi", "What is the capital of France?", "Why?", "Tell me about boats.", "a"]


def conversations() -> list[list[dict[str, Any]]]:
    return [[{"role": "user", "content": question}] for question in QUESTIONS]


@contextmanager
def engine_of(model: PreTrainedModel, tokenizer: Tokenizer, batch: int = 2) -> Iterator[EmbeddedEngine]:
    made = EmbeddedEngine(ReferenceRunner(model), tokenizer, max_batch=batch, max_waiting=len(QUESTIONS))
    yield made
    made.close(drain_seconds=0)


def answers(model: PreTrainedModel, tokenizer: Tokenizer, batch: int) -> list[str]:
    with engine_of(model, tokenizer, batch) as engine:
        return greedy_answers(engine, tokenizer, conversations(), max_tokens=8, on_answer=lambda done: None)


def test_answers_come_in_the_order_of_the_questions_whatever_the_batch(
    base: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    by_batch = [answers(base, tokenizer, batch) for batch in (1, 2, 8)]
    assert by_batch[0] == by_batch[1] == by_batch[2]
    assert len(by_batch[0]) == len(QUESTIONS)


def test_each_answer_is_counted_as_it_comes(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    counted: list[int] = []
    with engine_of(base, tokenizer) as engine:
        greedy_answers(engine, tokenizer, conversations(), max_tokens=2, on_answer=counted.append)
    assert counted == [1, 2, 3, 4, 5]


def test_no_questions_give_no_answers(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    with engine_of(base, tokenizer) as engine:
        assert greedy_answers(engine, tokenizer, [], max_tokens=2, on_answer=lambda done: None) == []


def test_a_model_that_fails_is_an_error_and_not_an_empty_answer(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    model = merge_adapter(base, adapter_files(scale=float("nan")))
    with pytest.raises(RuntimeError, match="NaN or infinite logits"):
        answers(model, tokenizer, 2)


def test_the_loss_of_given_answers_is_that_of_the_models_own_forward_pass(
    base: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    pairs = list(zip(conversations(), ["Yes.", "Paris, I think.", "", "They float.", "b"], strict=True))
    total, count = 0.0, 0
    for messages, answer in pairs:
        prompt, target = tokenizer.chat_ids(messages), tokenizer.ids(answer)
        logits = base(torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        total += (
            float(torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")) if target else 0
        )
        count += len(target)
    with engine_of(base, tokenizer) as engine:
        assert mean_nll(engine, tokenizer, pairs) == pytest.approx(total / count, rel=1e-4)


def test_a_loss_on_nothing_is_refused(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    with engine_of(base, tokenizer) as engine, pytest.raises(ValueError, match="suite is empty"):
        mean_nll(engine, tokenizer, [(conversations()[0], "")])
