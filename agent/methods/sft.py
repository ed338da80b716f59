"""Supervised lessons that leave the rest alone: TRL's SFT on the lessons, an adapter that reads only what is special
about them and moves softly what decides everything else, and a KL(base ‖ adapter) anchor on replay rows.

The anchor compares whole distributions over the answers of replay rows, which keeps more than replaying their text does
(measured: 28 of 30 kept questions against 21). Softness keeps more again, with half the replay (measured with 20
invented facts: 149 of 152 kept questions against 145, and 18 of 20 unseen paraphrases right against 16).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from agent.anchored import portable_lora, replay_anchor, tokenise
from agent.cooling import CoolingRate
from agent.influence import Drift, settle, soften
from agent.known import moved, says_already
from agent.loop import Watch, arguments
from agent.methods import Job, Row, Trained
from agent.replay import IGNORED, Anchor, collate, hidden_states
from agent.row_attention import attend_by_rows
from agent.subspace import aim, standing_out
from agent.survey import Survey
from agent.tokenizer import AnsweredIds

LOOKED_AT = 128  # rows on which it is told how far the adapter moved
CHUNK = 1024  # answer tokens whose logits are there at once: 200 MB for a vocabulary of 50,000


def train(job: Job) -> Trained:
    """Train a fresh adapter on the base. Deterministic for one machine, recipe and set of rows."""
    recipe, s = job.recipe, job.recipe.sft
    set_seed(recipe.seed)
    attend_by_rows(job.model)
    job, num_known = _without_known(job)
    lessons = [row for row in tokenise(job, job.lessons) if len(row.ids) <= recipe.max_length]
    if not lessons:
        raise ValueError(f"every lesson is longer than max_length, {recipe.max_length} tokens; raise it in the recipe")
    survey = job.survey() if s.is_aimed else None
    adapted, drift = _adapter(job, lessons, survey)
    steps = s.steps(len(lessons))
    rate = CoolingRate(warmup=s.warmup_steps, steps=steps, share=s.cooldown)
    watch = _Watch(job, rate)
    trainer = AnchoredTrainer(
        model=adapted,
        args=_arguments(job, lessons, steps),
        train_dataset=Dataset.from_list([example(row) for row in lessons]),
        processing_class=job.tokenizer.inner,
        data_collator=rows_of,
        callbacks=[watch],
        anchor=replay_anchor(
            job,
            adapted,
            weight=s.replay_weight,
            batch=s.replay_batch,
            known=survey.states if survey else None,
            is_text=s.replay_is_text,
        ),
        anchor_weight=s.replay_weight,
        drift=drift,
        drift_weight=s.drift_weight,
        rate=rate,
    )
    trainer.train()
    adapted.eval()
    settle(adapted)
    figures = {
        "loss": watch.smoothed or 0.0,
        "steps": float(trainer.state.global_step),
        "num_too_long": float(len(job.lessons) - len(lessons)),
        "num_known": float(num_known),
        "moved": round(moved(adapted, tokenise(job, _asked(job.lessons)[:LOOKED_AT])), 6),
    }
    return Trained(adapted, figures)


def _asked(lessons: Sequence[Row]) -> list[Row]:
    """The lessons in the words that people used."""
    return [row for row in lessons if row["source"]["made_by"] == "person"]


def _without_known(job: Job) -> tuple[Job, int]:
    """The job in which corrections that the base gives by itself are held like replay, not taught: there is nothing to
    mend, and teaching costs what is beside. And how many these are. Where all are known, all are taught.
    """
    asked = [row for row in _asked(job.lessons) if "feedback_id" in row["source"]]
    is_known = says_already(job.model, tokenise(job, asked))
    known = {row["source"]["feedback_id"]: row for row, is_so in zip(asked, is_known, strict=True) if is_so}
    lessons = [row for row in job.lessons if row["source"].get("feedback_id") not in known]
    if not known or not lessons:
        return job, 0
    return replace(job, lessons=lessons, replay=[*job.replay, *known.values()]), len(known)


class AnchoredTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's SFT with what holds the model back: the replay anchor, the drift and the rate. TRL and accelerate own the
    loop.

    Lessons and replay rows go through the model together, and through its output head only where they answer. `lesson`
    of a step's figures is the loss of the lessons alone.
    """

    def __init__(
        self,
        *,
        anchor: Anchor | None,
        anchor_weight: float,
        drift: Drift | None,
        drift_weight: float,
        rate: CoolingRate,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._anchor = anchor
        self._anchor_weight = anchor_weight
        self._drift = drift
        self._drift_weight = drift_weight
        self._rate = rate

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self._rate)
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        base = self.accelerator.unwrap_model(model).get_base_model()
        lessons: list[AnsweredIds] = inputs["rows"]
        replay, wanted = self._anchor.next() if self._anchor else ([], None)
        states = hidden_states(base, collate([*lessons, *replay]))
        targets = torch.tensor([token for row in lessons for token in (*row.ids[row.answer_at :], IGNORED)])
        loss = answer_loss(base.get_output_embeddings(), states[: len(targets)], targets.to(states.device))
        self._tell("lesson", loss)
        if self._anchor is not None:
            cost = self._anchor.cost(replay, wanted, states[len(targets) :])
            self._tell("anchor", cost)
            loss = loss + self._anchor_weight * cost
        if self._drift is not None:
            cost = self._drift.loss()
            self._tell("drift", cost)
            loss = loss + self._drift_weight * cost
        return loss

    def _tell(self, name: str, value: torch.Tensor) -> None:
        self._metrics["train"][name].append(float(value.detach()))


def answer_loss(head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (nats) of the `targets` (positions,) that are not IGNORED, by the output head over the hidden
    states (positions, width). Of long answers, chunk by chunk: a chunk's logits are worked out again on the way back.
    """

    def lost(some: torch.Tensor, wanted: torch.Tensor, reduction: str) -> torch.Tensor:
        logits = head(some).float()
        return torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction=reduction)

    if len(targets) <= CHUNK:
        return lost(states, targets, "mean")
    parts = zip(states.split(CHUNK), targets.split(CHUNK), strict=True)
    sums = [checkpoint(lost, *part, "sum", use_reentrant=False) for part in parts]
    return torch.stack(sums).sum() / (targets != IGNORED).sum()


def rows_of(examples: Sequence[Mapping[str, Any]]) -> dict[str, list[AnsweredIds]]:
    """Tokenised rows as they were; they are laid out together with replay rows."""
    starts = [next(place for place, label in enumerate(e["labels"]) if label != IGNORED) for e in examples]
    return {"rows": [AnsweredIds(tuple(e["input_ids"]), start) for e, start in zip(examples, starts, strict=True)]}


def _adapter(job: Job, lessons: Sequence[AnsweredIds], survey: Survey | None) -> tuple[Any, Drift | None]:
    """A fresh adapter; with a survey to weigh the lessons against, it reads only what stands out in the lessons, and is
    learnt softly.
    """
    recipe = job.recipe
    if survey is None:
        return get_peft_model(job.model, portable_lora(recipe)), None
    order = random.Random(recipe.seed)  # noqa: S311 - order, not secrets
    some = order.sample(list(lessons), min(recipe.sft.survey_lessons, len(lessons)))
    found = standing_out(job.model, some, survey.inputs, recipe.rank, recipe.sft.aim_floor, recipe.seed)
    adapted = get_peft_model(job.model, portable_lora(recipe))
    aim(adapted, found)
    return adapted, soften(adapted, survey, recipe.sft.soften_floor)


def example(row: AnsweredIds) -> dict[str, list[int]]:
    """What TRL trains on. Tokenised here, not there: special tokens that a correction spells out must stay text."""
    return {"input_ids": [*row.ids], "labels": [*[IGNORED] * row.answer_at, *row.ids[row.answer_at :]]}


def _arguments(job: Job, lessons: Sequence[AnsweredIds], steps: int) -> SFTConfig:
    s = job.recipe.sft
    return SFTConfig(
        **arguments(
            job,
            steps=steps,
            batch=s.batch,
            learning_rate=s.learning_rate,
            warmup_steps=s.warmup_steps,
            longest=max(len(row.ids) for row in lessons),
            together=s.batch + s.replay_batch,
        ),
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=False,  # the model's own precision; what trains is float32
    )


class _Watch(Watch):
    """Cools down from the loss target, and stops; by the loss of the lessons alone."""

    def __init__(self, job: Job, rate: CoolingRate) -> None:
        super().__init__(job, "train", "lesson")
        self._rate = rate

    def told(self, logs: dict[str, float]) -> dict[str, float]:
        return {**super().told(logs), "drift": logs.get("drift", 0.0), "rate": logs.get("learning_rate", 0.0)}

    def last(self, max_steps: int) -> int:
        return min(max_steps, self._rate.last)

    def is_done(self, step: int) -> bool:
        if self.smoothed is not None and self.smoothed < self.job.recipe.sft.loss_target:
            self._rate.cool(step)
        return step >= self._rate.last
