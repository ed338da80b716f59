"""What people prefer: KTO on thumbs (Ethayarajh et al. 2024), then DPO (Rafailov et al. 2023) with a supervised term on
pairs, where a correction stands against the answer it corrects and the better of two against the other. The weak labels
come first, so that the strong ones have the last word.

TRL does both loops. Each is measured against the adapter as it was at its beginning, whose log-probabilities are worked
out once; the anchor holds both to the base.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import PrinterCallback, set_seed
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from agent.anchored import Anchored, portable_lora, replay_anchor
from agent.loop import Watch, arguments
from agent.methods import Job, Row, Trained

ADAPTER = "default"
REFERENCE = "ref"  # TRL's name for its copy of the adapter
# At first DPO pulls an answer of a pair with β/2 over the batch, KTO a thumb with β/4 over one of twice as many rows,
# so that an anchor of the same weight would hold it four times as fast. At a quarter of it more is forgotten.
THUMB_PULL = 0.5

Example = dict[str, Any]


def train(job: Job) -> Trained:
    """Train the job's adapter, or a fresh one. Deterministic for one machine, recipe and set of rows."""
    set_seed(job.recipe.seed)
    pairs = _short_enough(job, [_pair(job, row) for row in job.pairs], "chosen_ids", "rejected_ids")
    rated = _short_enough(job, [_rated(job, row) for row in job.rated], "completion_ids")
    if not pairs and len(rated) < 2:  # KTO compares within a batch
        raise ValueError(
            f"{len(job.pairs)} pairs and {len(job.rated)} thumbs, of which {len(pairs)} and {len(rated)} keep within "
            f"max_length, {job.recipe.max_length} tokens: nothing to prefer; give corrections, thumbs, better-of-two"
        )
    adapted = job.adapted or get_peft_model(job.model, portable_lora(job.recipe))
    adapted.train()
    num_too_long = len(job.pairs) + len(job.rated) - len(pairs) - len(rated)
    figures = {"num_preferences_too_long": float(num_too_long)}
    if len(rated) > 1:
        figures |= _kto(job, adapted, rated)
    if pairs:
        figures |= _dpo(job, adapted, pairs)
    adapted.eval()
    return Trained(adapted, figures)


class _AsTokens:
    """Rows come tokenised: special tokens that a person's or the model's text spells out must stay text."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class PairTrainer(_AsTokens, Anchored, DPOTrainer):  # type: ignore[misc]
    """TRL's DPO and the anchor."""


class ThumbTrainer(_AsTokens, Anchored, KTOTrainer):  # type: ignore[misc]
    """TRL's KTO and the anchor."""


def _dpo(job: Job, adapted: Any, pairs: Sequence[Example]) -> dict[str, float]:
    s = job.recipe.preference
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, s.sft_weight]}
    args = DPOConfig(**losses, **_arguments(job, pairs, s.batch))
    return _run(job, adapted, "dpo", PairTrainer, args, pairs, pull=1.0)


def _kto(job: Job, adapted: Any, rated: Sequence[Example]) -> dict[str, float]:
    """Both kinds of thumb weigh the same together, however many there are of each (the paper's equation 8)."""
    batch = min(2 * job.recipe.preference.batch, len(rated))
    num_good = sum(row["label"] for row in rated)
    num_bad = len(rated) - num_good
    weights = {}
    if num_good and num_bad:
        rarer = "desirable_weight" if num_good < num_bad else "undesirable_weight"
        weights = {rarer: max(num_good, num_bad) / min(num_good, num_bad)}
    order = random.Random(job.recipe.seed)  # noqa: S311 - order, not secrets
    mixed = _mismatched(order.sample(list(rated), len(rated)), batch)
    args = KTOConfig(train_sampling_strategy="sequential", **weights, **_arguments(job, mixed, batch))
    return _run(job, adapted, "kto", ThumbTrainer, args, mixed, pull=THUMB_PULL)


def _mismatched(rated: Sequence[Example], batch: int) -> list[Example]:
    """Each row with the answer to another question of its batch, on which KTO estimates how far the model has moved.
    Rows beyond the last whole batch join it from the beginning: alone, a row would be its own mismatch.
    """
    rows = [*rated, *rated[: -len(rated) % batch]]
    groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return [
        {**row, "KL_completion_ids": group[place - 1]["completion_ids"]}
        for group in groups
        for place, row in enumerate(group)
    ]


def _run(
    job: Job,
    adapted: Any,
    phase: str,
    trainer_of: Callable[..., Any],
    args: Any,
    rows: Sequence[Example],
    *,
    pull: float,
) -> dict[str, float]:
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(f".{ADAPTER}." in name)
    s, watch = job.recipe.preference, _Watch(job, phase)
    trainer = trainer_of(
        model=adapted,
        args=args,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=job.tokenizer.inner,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    adapted.delete_adapter(REFERENCE)  # its figures are known now
    trainer.anchor = replay_anchor(job, adapted, weight=s.replay_weight, batch=s.replay_batch)
    trainer.anchor_weight = pull * s.replay_weight
    trainer.train()
    return {f"{phase}_loss": watch.smoothed or 0.0, f"{phase}_steps": float(trainer.state.global_step)} | watch.figures


def _pair(job: Job, row: Row) -> Example:
    prompt = job.tokenizer.chat_ids(row["messages"])
    return {
        "prompt_ids": prompt,
        "chosen_ids": _answer(job, row["chosen"]),
        "rejected_ids": _answer(job, row["rejected"]),
    }


def _rated(job: Job, row: Row) -> Example:
    prompt = job.tokenizer.chat_ids(row["messages"])
    return {"prompt_ids": prompt, "completion_ids": _answer(job, row["answer"]), "label": bool(row["is_good"])}


def _answer(job: Job, text: str) -> list[int]:
    return [*job.tokenizer.ids(text), *job.tokenizer.eos_ids]


def _short_enough(job: Job, rows: Sequence[Example], *answers: str) -> list[Example]:
    limit = job.recipe.max_length
    return [row for row in rows if all(len(row["prompt_ids"]) + len(row[name]) <= limit for name in answers)]


def _arguments(job: Job, rows: Sequence[Example], batch: int) -> dict[str, Any]:
    """What both trainers are told."""
    s = job.recipe.preference
    answers = ("chosen_ids", "rejected_ids", "completion_ids")
    lengths = [len(row["prompt_ids"]) + len(row[name]) for row in rows for name in answers if name in row]
    return {
        **arguments(
            job,
            steps=s.steps(len(rows), batch),
            batch=batch,
            learning_rate=s.learning_rate,
            warmup_steps=s.warmup_steps,
            longest=max(lengths),
            together=2 * batch + s.replay_batch,
        ),
        "beta": s.beta,
        "precompute_ref_log_probs": True,
        "bf16": job.model.dtype == torch.bfloat16 and job.model.device.type != "cpu",
    }


class _Watch(Watch):
    """Tells by how much what is preferred leads, where both kinds are in a batch."""

    def __init__(self, job: Job, phase: str) -> None:
        super().__init__(job, phase, "own")
        self.figures: dict[str, float] = {}

    def told(self, logs: dict[str, float]) -> dict[str, float]:
        told = super().told(logs)
        if "rewards/margins" in logs:  # a batch of thumbs of one kind has none
            told["margin"] = self.figures[f"{self.phase}_margin"] = logs["rewards/margins"]
        return told
