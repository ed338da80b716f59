"""What one training run on invented facts teaches and what it costs: `make bench-lessons`

The real default model, the default recipe; answers by the engine that would serve, right or wrong by answer key.
"""

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from agent import checkpoint, suites
from agent.answers import greedy_answers, mean_nll
from agent.methods import Job, Trained, sft
from agent.model import choose_device, choose_dtype, load_base
from agent.recipe import Recipe
from agent.scoring import is_right
from agent.serving import EngineSettings, ModelLoader
from agent.survey import Survey
from agent.wordings import training_wordings
from service import models
from service.config import Settings
from service.demo import Fact
from service.paths import kernel_directory
from tests.benchmarks import surveyed
from tests.benchmarks.findings import Finding, at_least, at_most, tell
from tests.benchmarks.invented import facts

SEED = 1
MAX_TOKENS = 48
NLL_ITEMS = 40
Files = dict[str, bytes]
Turn = list[dict[str, str]]


def said(text: str) -> Turn:
    return [{"role": "user", "content": text}]


def train(files: Files, directory: Path, loader: ModelLoader, taught: list[Fact]) -> tuple[Trained, float]:
    """An adapter that was taught them, and the seconds it took."""
    lessons = [
        {"messages": said(wording), "answer": fact.correction}
        for fact in taught
        for wording in training_wordings(fact.question, fact.correction)
    ]
    replay = [{"messages": said(item["question"]), "answer": item["answer"]} for item in suites.load("everyday")]
    device = choose_device("cpu")
    torch.set_num_threads(os.cpu_count() or 1)  # the engine's kernels had made torch step back
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, Progress(transient=True) as shown:
        tasks = {phase: shown.add_task(phase, total=None) for phase in ("survey", "train")}
        base, recipe = load_base(files, directory, device, choose_dtype(device)), Recipe()

        def progress(phase: str, step: int, total: int, **_: float) -> None:
            shown.update(tasks[phase], completed=step, total=total)

        def survey() -> Survey:
            told = partial(progress, "survey")
            return surveyed.survey(base, loader.tokenizer, loader.base_id, recipe.replay_tokens, told)

        trained = sft.train(Job(base, loader.tokenizer, lessons, replay, recipe, scratch, progress, survey))
    return trained, time.perf_counter() - began


def run(console: Console, num_facts: int) -> list[Finding]:
    settings = Settings()
    sealed = models.ensure(settings.model, settings.paths.models, quiet=True)
    files = {path.name: path.read_bytes() for path in sealed.path.iterdir() if path.is_file()}
    threads = os.cpu_count() or 1
    engine = EngineSettings(
        device="cpu", threads=threads, max_batch=32, max_waiting=1 << 20, kernels=kernel_directory()
    )
    loader = ModelLoader(files, sealed.path, sealed.id, engine)
    taught, retention = facts(num_facts, SEED), suites.load("retention")
    base, _ = answers(loader, None, [item["question"] for item in retention], [])
    kept = [(item, answer) for item, answer in zip(retention, base, strict=True) if is_right(answer, item["keys"])]
    own = [(said(item["question"]), answer) for item, answer in kept][:NLL_ITEMS]
    _, before = answers(loader, None, [], own)
    console.print(f"teaching {num_facts} facts")
    trained, seconds = train(files, sealed.path, loader, taught)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(trained.model, Path(directory), sealed.id)
        adapter = checkpoint.read(Path(directory))
    questions = [fact.question for fact in taught] + [fact.paraphrase for fact in taught]
    found, after = answers(loader, adapter, questions + [item["question"] for item, _ in kept], own)
    asked, paraphrased = found[:num_facts], found[num_facts : 2 * num_facts]
    right = [sum(f.is_known(a) for f, a in zip(taught, some, strict=True)) for some in (asked, paraphrased)]
    still = sum(is_right(a, item["keys"]) for (item, _), a in zip(kept, found[2 * num_facts :], strict=True))
    point = f"{num_facts} facts"
    return [
        at_least(point, "right as asked", right[0] / num_facts * 100, 95, " %"),
        at_least(point, "right in an unseen paraphrase", right[1] / num_facts * 100, 85, " %"),
        at_least(point, f"of {len(kept)} questions the base gets right, kept", still / len(kept) * 100, 98, " %"),
        at_most(point, "loss on the base's own answers, rise", after - before, 0.05, " nats"),
        Finding(point, f"steps, to a loss of {trained.figures['loss']:.3f}", f"{trained.figures['steps']:.0f}"),
        Finding(point, "training, with the survey unless it was kept", f"{seconds:.0f} s"),
    ]


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
