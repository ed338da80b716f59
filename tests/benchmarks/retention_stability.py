"""Which retention questions measure knowledge, and which measure rounding? `make bench-retention`

A small model's greedy answer can hang on a near tie that any change of weights decides anew, even rounding them to
bfloat16. A question that the base answers right or wrong by such luck says nothing about forgetting. Each question is
asked of the base as it is, rounded, and shaken four times by twice as much as rounding moves each weight. A question
belongs in the suite when all agree.
"""

import copy
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from transformers import PreTrainedModel

from agent import suites
from agent.answers import greedy_answers
from agent.engines.embedded import EmbeddedEngine
from agent.engines.reference import ReferenceRunner
from agent.model import load_base
from agent.scoring import is_right
from agent.tokenizer import Tokenizer
from service import models
from service.config import Settings

SHAKE = 2 * 2.0**-9 / 3**0.5  # twice the root mean square of bfloat16's relative rounding error
NUM_SHAKEN = 4
MAX_TOKENS = 48
Verdicts = list[tuple[str, list[bool]]]


def shaken(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A copy whose every weight is off by a random share of itself, twice rounding's."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data *= 1 + SHAKE * torch.randn(parameter.shape, generator=generator)
    return other


def _show(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)


def measure(items: list[dict[str, Any]]) -> Verdicts:
    """For each question whether each variant of the base gets it right."""
    settings = Settings()
    sealed = models.ensure(settings.model, settings.paths.models, quiet=True)
    files = {path.name: path.read_bytes() for path in sealed.path.iterdir() if path.is_file()}
    exact, rounded = (
        load_base(files, sealed.path, torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    variants = [exact, rounded, *(shaken(exact, seed) for seed in range(NUM_SHAKEN))]
    tokenizer = Tokenizer(sealed.path)
    conversations = [[{"role": "user", "content": item["question"]}] for item in items]
    found: list[list[bool]] = [[] for _ in items]
    with Progress(transient=True) as progress:
        for number, model in enumerate(variants, 1):
            task = progress.add_task(f"base, variant {number} of {len(variants)}", total=len(items))
            engine = EmbeddedEngine(ReferenceRunner(model), tokenizer, max_batch=32, max_waiting=len(items))
            answers = greedy_answers(
                engine,
                tokenizer,
                conversations,
                max_tokens=MAX_TOKENS,
                on_answer=partial(_show, progress, task),
            )
            engine.close(drain_seconds=0)
            for answer, item, verdicts in zip(answers, items, found, strict=True):
                verdicts.append(is_right(answer, item["keys"]))
    return [(str(item["question"]), verdicts) for item, verdicts in zip(items, found, strict=True)]


def main() -> int:
    """Print the questions on which the variants disagree. Exit status 1 when there are any."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    items = [json.loads(line) for line in path.read_text().splitlines()] if path else suites.load("retention")
    measured = measure(items)
    unstable = [(question, verdicts) for question, verdicts in measured if len(set(verdicts)) > 1]
    headings = ("as it is", "bfloat16", *(f"shaken {n + 1}" for n in range(NUM_SHAKEN)))
    table = Table("question", *headings, title="right by luck")
    for question, verdicts in unstable:
        table.add_row(question, *("right" if verdict else "–" for verdict in verdicts))
    console = Console()
    console.print(table)
    right = sum(all(verdicts) for _, verdicts in measured)
    console.print(f"{len(items)} questions: {right} always right, {len(unstable)} by luck, the rest always wrong")
    return 1 if unstable else 0


if __name__ == "__main__":
    sys.exit(main())
