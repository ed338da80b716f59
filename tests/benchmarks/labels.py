"""How many labels to the same accuracy, chosen or at random? `make bench-labels`

The real default model. Of each domain a pool, and test items apart from it; both arms begin from the same labels at
random, and after each round a fresh adapter is trained on all labels so far, with the same replay. As in a daemon's
log, every question was asked once, and answered by the base. Each round's result is a line of WORK/rounds.jsonl as soon
as it is there: a run that was stopped takes up where it was.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

import agent
from agent import checkpoint, suites
from agent.embedding import Vectors
from agent.lesson_rows import lesson_rows, unambiguous
from agent.methods import Job, sft
from agent.model import choose_device, choose_dtype, load_base
from agent.recipe import Recipe
from agent.serving import ModelLoader
from agent.tokenizer import Tokenizer
from agent.uncertainty import DEFAULT_SIGNAL, signal
from service import models
from service.config import Settings
from tests.benchmarks import surveyed
from tests.benchmarks.asking import Files, ask, served, settings, vectors
from tests.benchmarks.choosing import ARMS, PoolState
from tests.benchmarks.curves import interval, labels_needed, ratio
from tests.benchmarks.detection import auroc
from tests.benchmarks.domains import Item, domain
from tests.benchmarks.findings import Finding, at_most, tell
from tests.benchmarks.own import CACHE

DOMAINS = ("larger capitals", "mixed")
WORK = CACHE / "labels"
WARM = "warm-up"  # the arm of the round that both share
MAX_TOKENS = 48
WORDINGS = 3
KINDS = ("lenient", "strict", "pool")  # of the test items, and lenient of the pool with what was labelled in it

Train = Callable[[Sequence[Item], int], Files]  # labelled items and a seed to an adapter
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run. Lines of another plan are not taken up; `trained_by` must tell one way to train from another."""

    trained_by: str
    num_test: int = 60
    num_pool: int = 120
    warm_up: int = 15
    rounds: tuple[int, ...] = (20, 20)
    uncertainty: str = DEFAULT_SIGNAL
    logged_from: str = "base"  # who answered when people asked: its doubt is what the daemon has

    @property
    def budgets(self) -> list[int]:
        """Labels so far, after the warm-up and after each round."""
        return [self.warm_up + sum(self.rounds[:done]) for done in range(len(self.rounds) + 1)]

    def digest(self, items: Sequence[Item]) -> str:
        told = json.dumps([asdict(self), [asdict(item) for item in items]], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


class Notebook:
    """Lines of results by domain, seed, arm and round, kept in a file. A line that was cut off is done again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = [line for line in _lines(path) if line.endswith("\n")]
        kept = path.with_suffix(".kept")
        kept.write_text("".join(whole), encoding="utf-8")
        kept.replace(path)
        self._path = path
        self._rows = {_key(row): row for row in map(json.loads, whole)}

    def get(self, wanted: Row, make: Callable[[], Row]) -> Row:
        """The line of these fields, made and written if it is not there."""
        key = _key(wanted)
        if key not in self._rows:
            row = wanted | make()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._rows[key] = row
        found: Row = self._rows[key]
        return found


class Replicate:
    """One domain under one seed: which items are test and which pool, and its rounds."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        items: Sequence[Item],
        seed: int,
        *,
        train: Train,
        loader: ModelLoader,
        embed: Callable[[Sequence[str]], Vectors],
        doubt: Mapping[str, float],
        notebook: Notebook,
    ) -> None:
        """`doubt` has the uncertainty of the answer that was logged, by the item's group."""
        if len(items) < plan.num_test + plan.num_pool:
            raise ValueError(f"{len(items)} items of {name} are too few for {plan.num_test} + {plan.num_pool}")
        order = [items[place] for place in np.random.default_rng(seed).permutation(len(items))]
        self.test = order[: plan.num_test]
        self.pool = {item.group: item for item in order[plan.num_test :][: plan.num_pool]}
        self._vectors = dict(zip(self.pool, embed([item.question for item in self.pool.values()]), strict=True))
        self._plan, self._seed, self._doubt = plan, seed, doubt
        self._train, self._loader, self._notebook = train, loader, notebook
        self._named: Row = {"domain": name, "seed": seed, "plan": plan.digest(items)}

    def run(self, arm: str, on_round: Callable[[Row], None]) -> list[Row]:
        """The rows of the warm-up and of each round, in order."""
        labelled = list(self.pool)[: self._plan.warm_up]  # the pool is in random order
        rows = [self._round(WARM, 0, labelled)]
        on_round(rows[0])
        for number, count in enumerate(self._plan.rounds, start=1):
            labelled = [*labelled, *ARMS[arm](self._state(rows[-1], number), count)]
            rows.append(self._round(arm, number, labelled))
            on_round(rows[-1])
        return rows

    def _state(self, row: Row, number: int) -> PoolState:
        ids = [id_ for id_ in self.pool if id_ in row["uncertainty"]]
        logged = np.array([self._doubt[id_] for id_ in ids])
        doubt = np.array([row["uncertainty"][id_] for id_ in ids])
        embedded = np.array([self._vectors[id_] for id_ in ids])
        taken = np.array([self._vectors[id_] for id_ in row["labelled"]])
        return PoolState(ids, logged, doubt, embedded, taken, 1000 * self._seed + number)

    def _round(self, arm: str, number: int, labelled: Sequence[str]) -> Row:
        return self._notebook.get(self._named | {"arm": arm, "round": number}, lambda: self._measure(labelled))

    def _measure(self, labelled: Sequence[str]) -> Row:
        """Train on these labels; ask the test items and the pool."""
        adapter = self._train([self.pool[id_] for id_ in labelled], self._seed)
        asked = [*self.test, *self.pool.values()]
        answers = ask(self._loader, adapter, [item.question for item in asked], MAX_TOKENS)
        tested, pooled = answers[: len(self.test)], dict(zip(self.pool, answers[len(self.test) :], strict=True))
        rest = [id_ for id_ in self.pool if id_ not in set(labelled)]
        right = {id_: self.pool[id_].is_right(answer.text) for id_, answer in pooled.items()}
        return {
            "labelled": list(labelled),
            "lenient": [item.is_right(answer.text) for item, answer in zip(self.test, tested, strict=True)],
            "strict": [item.is_exact(answer.text) for item, answer in zip(self.test, tested, strict=True)],
            "pool": list(right.values()),
            "uncertainty": {id_: self._doubt[id_] for id_ in rest},
            "known": [id_ for id_ in rest if right[id_]],
        }


def by_sft(of: Settings, recipe: Recipe, items: Sequence[Item]) -> Train:
    """The default method, in this process. The replay is the shipped one, less what asks
    one of these items.
    """
    sealed = models.ensure(of.model, of.paths.models, quiet=True)
    files = {path.name: path.read_bytes() for path in sealed.path.iterdir() if path.is_file()}
    asked = {item.question for item in items}
    replay = [_row(one["question"], one["answer"]) for one in suites.load("everyday") if one["question"] not in asked]

    def train(labelled: Sequence[Item], seed: int) -> Files:
        device = choose_device("cpu")
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


def run(console: Console, domains: Sequence[str] = DOMAINS, num_seeds: int = 5, work: Path = WORK) -> list[Finding]:
    """With the default recipe."""
    of, recipe = settings(), Recipe()
    return measured(
        console,
        plan=Plan(f"sft {recipe.to_json()} by {source_digest()}"),
        domains=domains,
        seeds=range(1, num_seeds + 1),
        work=work,
        of=of,
        trainer=lambda items: by_sft(of, recipe, items),
    )


def source_digest() -> str:
    """Of all that trains and chooses: rounds of other code are not taken up."""
    files = sorted(Path(agent.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measured(
    console: Console,
    *,
    plan: Plan,
    domains: Sequence[str],
    seeds: Sequence[int],
    work: Path,
    of: Settings,
    trainer: Callable[[Sequence[Item]], Train],
) -> list[Finding]:
    """Everything that is not in `work` yet, and what follows from all of it."""
    loader, notebook = served(of), Notebook(work / "rounds.jsonl")
    found = []
    for name in domains:
        items = domain(name)
        train, doubt = trainer(items), doubts(plan, loader, items)
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
                doubt=doubt,
                notebook=notebook,
            )
            for arm, so_far in rows.items():
                so_far.append(replicate.run(arm, lambda row: console.print(_told(row))))
        found += findings(name, plan, rows)
    return found


def doubts(plan: Plan, loader: ModelLoader, items: Sequence[Item]) -> dict[str, float]:
    """How unsure the base is of its answer to each, by the items' groups."""
    unsure = signal(plan.uncertainty)
    answers = ask(loader, None, [item.question for item in items], MAX_TOKENS)
    return {item.group: unsure(answer.tokens) or 0.0 for item, answer in zip(items, answers, strict=True)}


def findings(name: str, plan: Plan, rows: dict[str, list[list[Row]]]) -> list[Finding]:
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
    for arm, replicates in rows.items():
        spent = np.mean([_num_wasted(replicate) for replicate in replicates])
        found.append(Finding(name, f"{arm}: of {sum(plan.rounds)} labels, on what was right already", f"{spent:.1f}"))
    found.append(
        Finding(
            name,
            "AUROC of the logged uncertainty for what is wrong now, of what has no label, by labels",
            _told_apart(plan, rows),
        )
    )
    return found


def _told_apart(plan: Plan, rows: dict[str, list[list[Row]]]) -> str:
    """How well the logged uncertainty finds what the newest adapter gets wrong, mean over arms and seeds."""
    by_round: dict[int, list[float]] = {labels: [] for labels in plan.budgets}
    for replicate in (replicate for replicates in rows.values() for replicate in replicates):
        for row in replicate:
            known = set(row["known"])
            wrong = np.array([id_ not in known for id_ in row["uncertainty"]], dtype=float)
            if 0 < wrong.sum() < len(wrong):
                by_round[len(row["labelled"])].append(auroc(np.array(list(row["uncertainty"].values())), wrong))
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


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("plan", "domain", "seed", "arm", "round"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", nargs="+", default=DOMAINS, choices=DOMAINS)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1")
    parser.add_argument("--work", type=Path, default=WORK, help="where results are kept and taken up from")
    given = parser.parse_args()
    console = Console()
    tell(console, run(console, given.domains, given.seeds, given.work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
