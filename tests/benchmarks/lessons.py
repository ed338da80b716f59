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
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress

from agent import checkpoint, suites
from agent.answers import greedy_answers, mean_nll
from agent.lesson_rows import lesson_rows, unambiguous
from agent.methods import Job, sft
from agent.model import choose_device, choose_dtype, load_base
from agent.recipe import Recipe
from agent.scoring import is_right
from agent.serving import EngineSettings, ModelLoader
from agent.survey import Survey
from service import models
from service.config import Settings
from service.models import SealedModel
from service.paths import kernel_directory
from tests.benchmarks import surveyed
from tests.benchmarks.findings import Finding, at_least, at_most, percent, tell
from tests.benchmarks.invented import Invented, facts

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
    """What one run taught: which facts are right as asked, in a paraphrase and in another one; which kept questions
    still are; the loss on the base's own answers over the base's, and `lengths` of the kept questions' answers.
    """

    asked: list[bool]
    paraphrased: list[bool]
    otherwise: list[bool]
    kept: list[bool]
    nll_rise: float
    lengths: npt.NDArray[np.float64]


def bench(settings: Settings) -> Bench:
    sealed = models.ensure(settings.model, settings.paths.models, quiet=True)
    files = {path.name: path.read_bytes() for path in sealed.path.iterdir() if path.is_file()}
    threads = os.cpu_count() or 1
    engine = EngineSettings(threads=threads, max_batch=32, max_waiting=1 << 20, kernels=kernel_directory())
    loader = ModelLoader(files, sealed.path, sealed.id, engine)
    retention = suites.load("retention")
    base, _ = answers(loader, None, [item["question"] for item in retention], [])
    kept = [(item, answer) for item, answer in zip(retention, base, strict=True) if is_right(answer, item["keys"])]
    own = [(said(item["question"]), answer) for item, answer in kept][:NLL_ITEMS]
    _, nll = answers(loader, None, [], own)
    return Bench(files, sealed, loader, kept, nll)


def train(on: Bench, taught: Sequence[Invented], recipe: Recipe) -> tuple[Files, dict[str, float], float]:
    """An adapter that was taught them, its figures, and the seconds it took."""
    lessons = unambiguous([row for fact in taught for row in lesson_rows(said(fact.question), fact.correction)])
    replay = [{"messages": said(item["question"]), "answer": item["answer"]} for item in suites.load("everyday")]
    device = choose_device()
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


def measure(on: Bench, taught: Sequence[Invented], adapter: Files) -> Learnt:
    """Everywhere the adapter's own answers."""
    wordings = [[getattr(fact, name) for fact in taught] for name in ("question", "paraphrase", "other")]
    questions = list(chain.from_iterable(wordings))
    found, after = answers(on.loader, adapter, questions + [item["question"] for item, _ in on.kept], on.own)
    again = found[len(questions) :]
    pairs = zip([*taught] * len(wordings), found[: len(questions)], strict=True)
    is_known = [fact.is_known(answer) for fact, answer in pairs]
    asked, paraphrased, otherwise = np.array(is_known).reshape(len(wordings), -1).tolist()
    return Learnt(
        asked=asked,
        paraphrased=paraphrased,
        otherwise=otherwise,
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
        Finding(point, "right in another, written when the recipe stood", f"{share(found.otherwise):.0f} %"),
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
