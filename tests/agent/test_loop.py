"""What the loops of learning methods share: memory where there is little, and an end to what has lost its way."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedModel

from agent import loop
from agent.loop import Watch, arguments, kept_bytes
from agent.methods import Job
from agent.recipe import Recipe
from agent.survey import Survey
from agent.tokenizer import Tokenizer


@pytest.fixture
def job(base: PreTrainedModel, tokenizer: Tokenizer, tmp_path: Path) -> Job:
    def none() -> Survey:
        raise AssertionError("nobody asks for a survey here")

    return Job(base, tokenizer, [], [], Recipe(), str(tmp_path), lambda *_, **__: None, none)


def told(job: Job, longest: int) -> dict[str, Any]:
    return arguments(job, steps=3, batch=2, learning_rate=1e-3, warmup_steps=1, longest=longest, together=16)


def test_what_a_step_keeps_grows_with_the_square_of_the_longest_row(base: PreTrainedModel) -> None:
    short, long = kept_bytes(base, 16, 100), kept_bytes(base, 16, 1000)
    assert 10 < long / short < 100
    assert kept_bytes(base, 32, 100) == 2 * short


def test_a_step_that_would_keep_more_than_half_of_what_is_free_keeps_less_and_computes_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "free_bytes", lambda device: 3 * kept_bytes(job.model, 16, 100))
    assert told(job, longest=100)["gradient_checkpointing"] is False
    assert told(job, longest=1000)["gradient_checkpointing"] is True


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(job: Job) -> None:
    watch, state = Watch(job, "train", "own"), SimpleNamespace(global_step=7, max_steps=9)
    with pytest.raises(FloatingPointError, match=r"the loss of train became nan at step 7; lower the learning rate"):
        watch.on_log(None, state, SimpleNamespace(should_training_stop=False), {"own": float("nan")})


def test_a_step_without_the_trainers_own_loss_is_not_told(job: Job) -> None:
    watch = Watch(job, "train", "own")
    watch.on_log(None, SimpleNamespace(global_step=1, max_steps=9), None, {"train_runtime": 3.0})
    assert watch.smoothed is None
