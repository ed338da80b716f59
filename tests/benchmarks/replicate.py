"""One domain under one seed: rounds of labels, chosen by an arm, each with a training and its measurement, kept in a
file.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.embedding import Vectors
from agent.serving import ModelLoader
from agent.uncertainty import DEFAULT_SIGNAL, signal
from tests.benchmarks.asking import Files, ask
from tests.benchmarks.choosing import ARMS, PoolState
from tests.benchmarks.domains import Item

WARM = "warm-up"  # the arm of the round that both share
MAX_TOKENS = 48

Train = Callable[[Sequence[Item], int], Files]  # labelled items and a seed to an adapter
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run. Lines of another plan are not taken up; `trained_by` must tell one way to train from another."""

    trained_by: str
    num_test: int
    num_pool: int = 120
    warm_up: int = 15
    rounds: tuple[int, ...] = (20, 20)
    uncertainty: str = DEFAULT_SIGNAL

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


@dataclass(frozen=True, slots=True)
class Logged:
    """What became of a question when it was asked once: how unsure its answer was, and whether wrong."""

    uncertainty: float
    is_wrong: bool


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
        logged: Mapping[str, Logged],
        notebook: Notebook,
    ) -> None:
        """`logged` has the answers that were logged, by the item's group."""
        if len(items) < plan.num_test + plan.num_pool:
            raise ValueError(f"{len(items)} items of {name} are too few for {plan.num_test} + {plan.num_pool}")
        order = [items[place] for place in np.random.default_rng(seed).permutation(len(items))]
        self.test = order[: plan.num_test]
        self.pool = {item.group: item for item in order[plan.num_test :][: plan.num_pool]}
        self._vectors = dict(zip(self.pool, embed([item.question for item in self.pool.values()]), strict=True))
        self._plan, self._seed, self._logged, self._unsure = plan, seed, logged, signal(plan.uncertainty)
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
        ids, labelled = list(row["uncertainty"]), row["labelled"]
        return PoolState(
            ids=ids,
            logged=np.array([self._logged[id_].uncertainty for id_ in ids]),
            doubt=np.array(list(row["uncertainty"].values())),
            vectors=np.array([self._vectors[id_] for id_ in ids]),
            taken=np.array([self._vectors[id_] for id_ in labelled]),
            was_wrong=np.array([self._logged[id_].is_wrong for id_ in labelled], dtype=np.float64),
            seed=1000 * self._seed + number,
        )

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
            "uncertainty": {id_: self._unsure(pooled[id_].tokens) or 0.0 for id_ in rest},
            "known": [id_ for id_ in rest if right[id_]],
        }


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("plan", "domain", "seed", "arm", "round"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
