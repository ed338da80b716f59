"""How many labels to the same accuracy, chosen or at random? `make bench-labels`

The real default model. Of each domain a pool, and test items apart from it; both arms begin from the same labels at
random, and after each round a fresh adapter is trained on all labels so far, with the same replay. As in a daemon's
log, every question was asked once, and answered by the base; before a label is asked for, the newest adapter is asked
again. Each round's result is a line of WORK/rounds.jsonl as soon as it is there: a run that was stopped takes up where
it was.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

import agent
from agent import checkpoint, suites
from agent.lesson_rows import lesson_rows, unambiguous
from agent.methods import Job, sft
from agent.model import choose_device, choose_dtype, load_base
from agent.recipe import Recipe
from agent.serving import ModelLoader
from agent.tokenizer import Tokenizer
from agent.uncertainty import signal
from service import models
from service.config import Settings
from tests.benchmarks import surveyed
from tests.benchmarks.asking import Files, ask, served, settings, vectors
from tests.benchmarks.choosing import ARMS
from tests.benchmarks.curves import interval, labels_needed, ratio
from tests.benchmarks.detection import auroc
from tests.benchmarks.domains import Item, domain
from tests.benchmarks.findings import Finding, at_most, tell
from tests.benchmarks.own import CACHE
from tests.benchmarks.replicate import MAX_TOKENS, Logged, Notebook, Plan, Replicate, Row, Train

DOMAINS = {"larger capitals": 60, "mixed": 240}  # test items, as many as there are beside the pool
WORK = CACHE / "labels"
WORDINGS = 3
KINDS = ("lenient", "strict", "pool")  # of the test items, and lenient of the pool with what was labelled in it


def by_sft(of: Settings, recipe: Recipe, items: Sequence[Item]) -> Train:
    """The default method, in this process. The replay is the shipped one, less what asks
    one of these items.
    """
    sealed = models.ensure(of.model, of.paths.models, quiet=True)
    files = {path.name: path.read_bytes() for path in sealed.path.iterdir() if path.is_file()}
    asked = {item.question for item in items}
    replay = [_row(one["question"], one["answer"]) for one in suites.load("everyday") if one["question"] not in asked]

    def train(labelled: Sequence[Item], seed: int) -> Files:
        device = choose_device()
        torch.set_num_threads(os.cpu_count() or 1)  # a loader with kernels of its own had left one
        with tempfile.TemporaryDirectory() as scratch, Progress(transient=True) as shown:
            tasks = {phase: shown.add_task(phase, total=None) for phase in ("survey", "train")}
            base, tokenizer = load_base(files, sealed.path, device, choose_dtype(device)), Tokenizer(sealed.path)
            job = Job(
                base,
                tokenizer,
                _lessons(labelled),
                replay,
                replace(recipe, seed=seed),
                scratch,
                lambda phase, step, total, **_: shown.update(tasks[phase], completed=step, total=total),
                partial(surveyed.survey, base, tokenizer, sealed.id, recipe.replay_tokens),
            )
            directory = Path(scratch) / "adapter"
            directory.mkdir()
            checkpoint.save(sft.train(job).model, directory, sealed.id)
            return checkpoint.read(directory)

    return train


def run(
    console: Console, domains: Sequence[str] = tuple(DOMAINS), num_seeds: int = 5, work: Path = WORK
) -> list[Finding]:
    """With the default recipe."""
    of, recipe = settings(), Recipe()
    trained_by = f"sft {recipe.to_json()} by {source_digest()}"
    return measured(
        console,
        plans={name: Plan(trained_by, num_test=DOMAINS[name]) for name in domains},
        seeds=range(1, num_seeds + 1),
        work=work,
        of=of,
        trainer=lambda items: by_sft(of, recipe, items),
    )


def source_digest() -> str:
    """Of all that trains and chooses: rounds of other code are not taken up."""
    here = Path(__file__).parent
    files = [*sorted(Path(agent.__file__).parent.rglob("*.py")), here / "choosing.py", here / "replicate.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measured(
    console: Console,
    *,
    plans: Mapping[str, Plan],
    seeds: Sequence[int],
    work: Path,
    of: Settings,
    trainer: Callable[[Sequence[Item]], Train],
) -> list[Finding]:
    """Everything of these domains that is not in `work` yet, and what follows from all of it."""
    loader, notebook = served(of), Notebook(work / "rounds.jsonl")
    found = []
    for name, plan in plans.items():
        items = domain(name)
        train, logged = trainer(items), answered(plan, loader, items)
        rows: dict[str, list[list[Row]]] = {arm: [] for arm in ARMS}
        for seed in seeds:
            replicate = Replicate(
                plan,
                name,
                items,
                seed,
                train=train,
                loader=loader,
                embed=lambda texts: vectors(of, texts),
                logged=logged,
                notebook=notebook,
            )
            for arm, so_far in rows.items():
                so_far.append(replicate.run(arm, lambda row: console.print(_told(row))))
        found += findings(name, plan, rows, logged)
    return found


def answered(plan: Plan, loader: ModelLoader, items: Sequence[Item]) -> dict[str, Logged]:
    """What the base says to each, by the items' groups."""
    unsure = signal(plan.uncertainty)
    answers = ask(loader, None, [item.question for item in items], MAX_TOKENS)
    return {
        item.group: Logged(unsure(answer.tokens) or 0.0, not item.is_right(answer.text))
        for item, answer in zip(items, answers, strict=True)
    }


def findings(name: str, plan: Plan, rows: dict[str, list[list[Row]]], logged: Mapping[str, Logged]) -> list[Finding]:
    """The ratio with its interval, and the curves behind it, lenient and strict."""
    found = []
    for kind in KINDS:
        scores = {
            arm: [np.array([row[kind] for row in replicate], dtype=float) for replicate in replicates]
            for arm, replicates in rows.items()
        }
        curves = {arm: np.mean([one.mean(axis=1) for one in some], axis=0) for arm, some in scores.items()}
        active, random = curves["active"], curves["random"]
        needed = [labels_needed(plan.budgets, curve, float(random.max())) for curve in (active, random)]
        told = f"{kind}: labels to {random.max():.2f}, {needed[0]:.0f} chosen beside {needed[1]:.0f} at random"
        past = [budget - plan.warm_up for budget in plan.budgets]
        for what, budgets in ((told, plan.budgets), (f"{kind}: past the warm-up that both share", past)):
            low, high = interval(budgets, scores["active"], scores["random"])
            found.append(at_most(name, f"{what}, ratio", ratio(budgets, active, random), 0.6))
            found.append(Finding(name, f"the same, 95 % over {len(scores['active'])} seeds", f"{low:.2f} – {high:.2f}"))
        for arm, curve in curves.items():
            figures = ", ".join(f"{n}: {share:.2f}" for n, share in zip(plan.budgets, curve, strict=True))
            found.append(Finding(name, f"{kind}, {arm}, by labels", figures))
    spent = {arm: float(np.mean([_num_wasted(one) for one in replicates])) for arm, replicates in rows.items()}
    for arm, count in spent.items():
        found.append(Finding(name, f"{arm}: of {sum(plan.rounds)} labels, on what was right already", f"{count:.1f}"))
    least = (plan.budgets[-1] - spent["random"]) / plan.budgets[-1]
    found.append(Finding(name, "ratio of an arm that wastes none, if each label teaches as much", f"{least:.2f}"))
    told = "AUROC for what is wrong now, of what has no label, by labels"
    found.append(Finding(name, f"{told}: the newest adapter's own doubt", _told_apart(plan, rows, None)))
    found.append(Finding(name, f"{told}: the doubt that was logged", _told_apart(plan, rows, logged)))
    return found


def _told_apart(plan: Plan, rows: dict[str, list[list[Row]]], logged: Mapping[str, Logged] | None) -> str:
    """How well an uncertainty, the adapter's own if not told, finds what it gets wrong, mean over arms and seeds."""
    by_round: dict[int, list[float]] = {labels: [] for labels in plan.budgets}
    for replicate in (replicate for replicates in rows.values() for replicate in replicates):
        for row in replicate:
            doubt, known = row["uncertainty"], set(row["known"])
            if logged is not None:
                doubt = {id_: logged[id_].uncertainty for id_ in doubt}
            wrong = np.array([id_ not in known for id_ in doubt], dtype=float)
            if 0 < wrong.sum() < len(wrong):
                by_round[len(row["labelled"])].append(auroc(np.array(list(doubt.values())), wrong))
    return ", ".join(f"{labels}: {np.mean(found):.2f}" for labels, found in by_round.items() if found)


def _num_wasted(replicate: Sequence[Row]) -> int:
    """Labels given to questions that the round before answered right."""
    pairs = pairwise(replicate)
    return sum(len(set(after["labelled"]) & set(before["known"])) for before, after in pairs)


def _told(row: Row) -> str:
    right = ", ".join(f"{kind} {np.mean(row[kind]):.2f}" for kind in ("lenient", "strict"))
    return f"{row['domain']}, seed {row['seed']}, {row['arm']}, {len(row['labelled'])} labels: {right}"


def _lessons(labelled: Sequence[Item]) -> list[Row]:
    """As asked and in a few other wordings, as many as fit in a benchmark's time."""
    messages = [[{"role": "user", "content": item.question}] for item in labelled]
    rows = [lesson_rows(asked, item.correction) for asked, item in zip(messages, labelled, strict=True)]
    return unambiguous([row for some in rows for row in some[:: max(1, len(some) // WORDINGS)][:WORDINGS]])


def _row(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}], "answer": answer}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", nargs="+", default=tuple(DOMAINS), choices=DOMAINS)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1")
    parser.add_argument("--work", type=Path, default=WORK, help="where results are kept and taken up from")
    given = parser.parse_args()
    console = Console()
    tell(console, run(console, given.domains, given.seeds, given.work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
