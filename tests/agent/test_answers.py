"""Many greedy answers at once."""

from typing import Any

import pytest
from transformers import PreTrainedModel

from agent.answers import greedy_answers
from agent.model import merge_adapter
from agent.tokenizer import Tokenizer
from tests.fakes import adapter_files

QUESTIONS = ["hi", "What is the capital of France?", "Why?", "Tell me about boats.", "a"]


def conversations() -> list[list[dict[str, Any]]]:
    return [[{"role": "user", "content": question}] for question in QUESTIONS]


def test_answers_come_in_the_order_of_the_questions_whatever_the_batch(
    base: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    by_batch = [
        greedy_answers(base, tokenizer, conversations(), max_tokens=8, batch=batch, on_answer=lambda done: None)
        for batch in (1, 2, 8)
    ]
    assert by_batch[0] == by_batch[1] == by_batch[2]
    assert len(by_batch[0]) == len(QUESTIONS)


def test_each_answer_is_counted_as_it_comes(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    counted: list[int] = []
    greedy_answers(base, tokenizer, conversations(), max_tokens=2, batch=2, on_answer=counted.append)
    assert counted == [1, 2, 3, 4, 5]


def test_no_questions_give_no_answers(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    assert greedy_answers(base, tokenizer, [], max_tokens=2, batch=2, on_answer=lambda done: None) == []


def test_a_model_that_fails_is_an_error_and_not_an_empty_answer(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    model = merge_adapter(base, adapter_files(scale=float("nan")))
    with pytest.raises(RuntimeError, match="NaN or infinite logits"):
        greedy_answers(model, tokenizer, conversations(), max_tokens=2, batch=2, on_answer=lambda done: None)
