"""What learning methods share: rows as tokens, a fresh portable adapter, and the anchor that holds it to the base."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig

from agent.lowrank import quick
from agent.methods import Job, Row
from agent.recipe import Recipe
from agent.replay import Anchor
from agent.tokenizer import AnsweredIds


class Anchored:
    """Mixed in before one of TRL's trainers, adds the replay anchor to its loss: TRL and accelerate own the loop.

    `own` of a step's figures is the trainer's loss alone, `anchor` the KL(base ‖ adapter) in nats.
    """

    anchor: Anchor | None = None
    anchor_weight: float = 0.0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        trainer: Any = super()
        loss = trainer.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if return_outputs:
            return loss
        figures = self._metrics["train"]  # type: ignore[attr-defined]  # TRL's
        figures["own"].append(float(loss.detach()))
        if self.anchor is None:
            return loss
        cost: torch.Tensor = self.anchor.loss()
        figures["anchor"].append(float(cost.detach()))
        return loss + self.anchor_weight * cost


def tokenise(job: Job, rows: Sequence[Row], max_answer_tokens: int | None = None) -> list[AnsweredIds]:
    """Rows that have `messages`, `answer` and perhaps its `given` beginning."""
    return [
        job.tokenizer.answered_ids(row["messages"], row["answer"], max_answer_tokens, row.get("given", ""))
        for row in rows
    ]


def portable_lora(recipe: Recipe) -> LoraConfig:
    """The portable profile: plain LoRA on all linear layers, one rank and alpha, no bias, no dropout."""
    return quick(
        LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
        )
    )


def replay_anchor(
    job: Job,
    adapted: Any,
    *,
    weight: float,
    batch: int,
    known: Mapping[str, torch.Tensor] | None = None,
    is_text: bool = False,
) -> Anchor | None:
    """The anchor over the job's replay rows, with what a survey knows of them; None where there is nothing to hold, or
    nothing holds.
    """
    if not job.replay or not weight or not batch:
        return None
    rows = tokenise(job, job.replay, job.recipe.replay_tokens)
    order = random.Random(job.recipe.seed)  # noqa: S311 - order, not secrets
    return Anchor(adapted, rows, batch=batch, order=order, known=known, is_text=is_text)
