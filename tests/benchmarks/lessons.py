"""What one training run on invented facts teaches and what it costs: `make bench-lessons`

The real default model, the default recipe; answers by the engine that would serve, right or wrong by answer key.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress

from agent import checkpoint, suites
from agent.answers import greedy_answers, mean_nll
from agent.dataset import unambiguous
from agent.methods import Job, sft
from agent.model import choose_device, choose_dtype, load_base
from agent.recipe import Recipe
from agent.scoring import is_right
from agent.serving import EngineSettings, ModelLoader
from agent.survey import Survey
from agent.wordings import training_wordings
from service import models
from service.config import Settings
from service.demo import Fact
from service.models import SealedModel
from service.paths import kernel_directory
from tests.benchmarks import surveyed
from tests.benchmarks.findings import Finding, at_least, at_most, percent, tell
from tests.benchmarks.invented import facts

SEED = 1
MAX_TOKENS = 48
NLL_ITEMS = 40
Files = dict[str, bytes]
Turn = list[dict[str, str]]


def said(text: str) -> Turn:
    return [{"role": "user", "content": text}]


@dataclass(frozen=True, slots=True)
class Bench:
    """The base with what it is held against: the retention questions that it gets right, its answers to them, and its
    loss on the first of those.
    """

    files: Files
    sealed: SealedModel
    loader: ModelLoader
    kept: list[tuple[dict[str, Any], str]]
    nll: float

    @property
    def own(self) -> list[tuple[Turn, str]]:
        return [(said(item["question"]), answer) for item, answer in self.kept][:NLL_ITEMS]


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What one run taught: of `facts` which are right as asked and paraphrased, which kept questions still are, and
    the loss on the base's own answers over the base's; `lengths` of the kept questions' answers over the base's.
    """

    asked: list[bool]
    paraphrased: list[bool]
    kept: list[bool]
    nll_rise: float
    lengths: npt.NDArray[np.float64]


def bench(settings: Settings) -> Bench:
    sealed = models.ensure(settings.model, settings.paths.models, quiet=True)
    files = {path.name: path.read_bytes() for path in sealed.path.iterdir() if path.is_file()}
    threads = os.cpu_count() or 1
    engine = EngineSettings(
        device="cpu", threads=threads, max_batch=32, max_waiting=1 << 20, kernels=kernel_directory()
    )
    loader = ModelLoader(files, sealed.path, sealed.id, engine)
    retention = suites.load("retention")
    base, _ = answers(loader, None, [item["question"] for item in retention], [])
    kept = [(item, answer) for item, answer in zip(retention, base, strict=True) if is_right(answer, item["keys"])]
    own = [(said(item["question"]), answer) for item, answer in kept][:NLL_ITEMS]
    _, nll = answers(loader, None, [], own)
    return Bench(files, sealed, loader, kept, nll)


def train(on: Bench, taught: Sequence[Fact], recipe: Recipe) -> tuple[Files, dict[str, float], float]:
    """An adapter that was taught them, its figures, and the seconds it took."""
    lessons = unambiguous(
        [
            {"messages": said(wording), "answer": fact.correction}
            | {"source": {"made_by": "person" if wording == fact.question else "wording"}}
            for fact in taught
            for wording in training_wordings(fact.question, fact.correction)
        ]
    )
    replay = [{"messages": said(item["question"]), "answer": item["answer"]} for item in suites.load("everyday")]
    device = choose_device("cpu")
    torch.set_num_threads(os.cpu_count() or 1)  # the engine's kernels had made torch step back
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, Progress(transient=True) as shown:
        tasks = {phase: shown.add_task(phase, total=None) for phase in ("survey", "train")}
        base = load_base(on.files, on.sealed.path, device, choose_dtype(device))

        def progress(phase: str, step: int, total: int, **_: float) -> None:
            shown.update(tasks[phase], completed=step, total=total)

        def survey() -> Survey:
            told = partial(progress, "survey")
            return surveyed.survey(base, on.loader.tokenizer, on.loader.base_id, recipe.replay_tokens, told)

        trained = sft.train(Job(base, on.loader.tokenizer, lessons, replay, recipe, scratch, progress, survey))
        seconds = time.perf_counter() - began
        directory = Path(scratch) / "adapter"
        directory.mkdir()
        checkpoint.save(trained.model, directory, on.sealed.id)
        return checkpoint.read(directory), trained.figures, seconds


def measure(on: Bench, taught: Sequence[Fact], adapter: Files) -> Learnt:
    """Everywhere the adapter's own answers."""
    questions = [fact.question for fact in taught] + [fact.paraphrase for fact in taught]
    found, after = answers(on.loader, adapter, questions + [item["question"] for item, _ in on.kept], on.own)
    num = len(taught)
    asked, paraphrased, again = found[:num], found[num : 2 * num], found[2 * num :]
    return Learnt(
        asked=[fact.is_known(answer) for fact, answer in zip(taught, asked, strict=True)],
        paraphrased=[fact.is_known(answer) for fact, answer in zip(taught, paraphrased, strict=True)],
        kept=[is_right(answer, item["keys"]) for (item, _), answer in zip(on.kept, again, strict=True)],
        nll_rise=after - on.nll,
        lengths=np.array([len(answer) / len(before) for answer, (_, before) in zip(again, on.kept, strict=True)]),
    )


def run(console: Console, num_facts: int) -> list[Finding]:
    on, taught = bench(Settings()), facts(num_facts, SEED)
    console.print(f"teaching {num_facts} facts")
    adapter, figures, seconds = train(on, taught, Recipe())
    found = measure(on, taught, adapter)
    point = f"{num_facts} facts"
    return [
        at_least(point, "right as asked", share(found.asked), 95, " %"),
        at_least(point, "right in an unseen paraphrase", share(found.paraphrased), 85, " %"),
        at_least(point, f"of {len(found.kept)} questions the base gets right, kept", share(found.kept), 98, " %"),
        at_most(point, "loss on the base's own answers, rise", found.nll_rise, 0.05, " nats"),
        Finding(point, f"steps, to a loss of {figures['loss']:.3f}", f"{figures['steps']:.0f}"),
        Finding(point, "training, with the survey unless it was kept", f"{seconds:.0f} s"),
    ]


def share(right: Sequence[bool]) -> float:
    """In percent."""
    return percent(sum(right), len(right))


def answers(
    loader: ModelLoader, adapter: Files | None, questions: list[str], own: list[tuple[Turn, str]]
) -> tuple[list[str], float]:
    """To the questions, and the mean loss on given answers; NaN without any."""
    engine = loader.build("measured", adapter).engine
    conversations = [said(question) for question in questions]
    found = greedy_answers(engine, loader.tokenizer, conversations, max_tokens=MAX_TOKENS, on_answer=lambda done: None)
    loss = mean_nll(engine, loader.tokenizer, own) if own else float("nan")
    engine.close(drain_seconds=0)
    return found, loss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=20, help="how many to teach")
    console = Console()
    tell(console, run(console, parser.parse_args().facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
