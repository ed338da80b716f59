"""What people taught, as the sealed input of one run: admission, curation, files. Also what an evaluation asks."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import suites
from agent.dataset import Dataset, DatasetSettings, Row, build, repair_items, reworded_items
from agent.recipe import Recipe
from agent.rundir import EVALUATE_INPUT, TRAIN_INPUT, RunDirectory
from agent.scoring import answer_key
from policies.admission import LearnFacts, may_learn
from policies.engine import PolicySet
from service.models import SealedModel
from service.paths import Paths
from store import artifacts
from store.audit import digest
from store.interactions import Interactions
from store.records import DatasetSnapshot, Feedback, Interaction, TrainingRun

EVALUATION_TOKENS = 48
CONFIDENT_ROWS = 16

Taught = list[tuple[Interaction, Feedback]]


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What both child processes are told about the machine."""

    device: str
    dtype: str
    threads: int


class Snapshots:
    """Builds run and evaluation directories. Each appears whole or not at all."""

    def __init__(
        self,
        *,
        interactions: Interactions,
        policy_set: PolicySet,
        paths: Paths,
        base: SealedModel,
        child: ChildSettings,
        settings: DatasetSettings = DatasetSettings(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._policy_set = policy_set
        self._paths = paths
        self._base = base
        self._child = child
        self._settings = settings
        self._clock = clock

    def taught(self) -> Taught:
        """The standing corrections that policy admits to training, oldest first."""
        taken: dict[str, int] = {}
        admitted: Taught = []
        for interaction, feedback in self._interactions.standing_feedback():
            num_taken = taken.get(feedback.principal, 0)
            if may_learn(LearnFacts(feedback, num_taken), self._policy_set).allowed:
                taken[feedback.principal] = num_taken + 1
                admitted.append((interaction, feedback))
        return admitted

    def prepare_run(self, run_id: str, recipe: Recipe) -> DatasetSnapshot:
        """Write the run directory of everything taught so far; ValueError when nothing is."""
        confident = self._interactions.confident(self._base.id, CONFIDENT_ROWS)
        dataset = build(self.taught(), confident, suites.load("everyday"), self._settings)
        if not any(row["kind"] == "lesson" for row in dataset.train):
            raise ValueError(
                "nothing to learn: no admitted correction; give some with `honed feedback` or `honed label`"
            )
        directory = self._fresh(self._paths.run(run_id))
        run = RunDirectory(directory)
        run.write_rows("train.jsonl", dataset.train)
        run.write_rows("holdout.jsonl", dataset.holdout)
        run.write_rows("dropped.jsonl", dataset.dropped)
        run.write(TRAIN_INPUT, {"run_id": run_id, "recipe": recipe.to_json(), **self._machine()})
        snapshot = self._snapshot(dataset, directory)
        directory.rename(self._paths.run(run_id))
        return snapshot

    def prepare_evaluation(self, run: TrainingRun, candidate_id: str, champion_id: str) -> Path:
        """Write the evaluation directory inside the run's; returns it."""
        destination = self.evaluation_directory(run.id)
        directory = self._fresh(destination)
        evaluation = RunDirectory(directory)
        evaluation.write_rows("items.jsonl", self._items(run))
        champion = None if champion_id == self._base.id else str(self._paths.checkpoint(champion_id))
        job = {
            "candidate_adapter": str(self._paths.checkpoint(candidate_id)),
            "champion_adapter": champion,
            "max_tokens": EVALUATION_TOKENS,
            "num_train": self._num_lessons(run),
            **self._machine(),
        }
        evaluation.write(EVALUATE_INPUT, job)
        if destination.exists():
            shutil.rmtree(destination)
        directory.rename(destination)
        return destination

    def keep_base_answers(self, directory: Path) -> None:
        self._keep(self._answer_cache(), RunDirectory(directory).rows("base_answers.jsonl"))

    def evaluation_directory(self, run_id: str) -> Path:
        return self._paths.run(run_id) / "evaluation"

    def _items(self, run: TrainingRun) -> list[Row]:
        """Every correction that stands (also the earlier repairs), its other wordings, what was held out,
        and what must stay.
        """
        asked = repair_items(self.taught())
        known = self._cached(self._answer_cache())
        holdout = [
            {"messages": row["messages"], "expected": row["answer"], "keys": [list(_key(row))]}
            for row in RunDirectory(self._paths.run(run.id)).rows("holdout.jsonl")
        ]
        held = {digest(row["messages"]) for row in holdout}
        repairs = [item for item in asked if digest(item["messages"]) not in held]
        retention = [
            {
                "messages": [{"role": "user", "content": i["question"]}],
                "keys": i["keys"],
                "expected": " / ".join(map(" ".join, i["keys"])),
            }
            for i in suites.load("retention")
        ]
        by_suite = {"asked": repairs, "paraphrase": reworded_items(repairs), "holdout": holdout, "retention": retention}
        return [
            {**item, "suite": suite, "base_answer": known.get(digest(item["messages"]))}
            for suite, items in by_suite.items()
            for item in items
        ]

    def _snapshot(self, dataset: Dataset, directory: Path) -> DatasetSnapshot:
        files = {name: artifacts.sha256_file(directory / name) for name in ("train.jsonl", "holdout.jsonl")}
        replay = sum(row["kind"] == "replay" for row in dataset.train)
        return DatasetSnapshot(
            id=digest(files),
            created_at=self._clock(),
            num_train=len(dataset.train) - replay,
            num_holdout=len(dataset.holdout),
            num_replay=replay,
            sources=dataset.sources,
        )

    def _num_lessons(self, run: TrainingRun) -> int:
        return sum(row["kind"] == "lesson" for row in RunDirectory(self._paths.run(run.id)).rows("train.jsonl"))

    def _machine(self) -> dict[str, Any]:
        child = self._child
        return {
            "base_id": self._base.id,
            "base_dir": str(self._base.path),
            "device": child.device,
            "dtype": child.dtype,
            "threads": child.threads,
        }

    def _fresh(self, destination: Path) -> Path:
        """An empty directory beside `destination`, to be renamed to it when whole."""
        directory = destination.parent / f".{destination.name}.new"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        return directory

    def _answer_cache(self) -> Path:
        return self._paths.cache / f"answers-{self._base.id}-{EVALUATION_TOKENS}.jsonl"

    def _cached(self, path: Path) -> dict[str, str]:
        """Answers by the digest of their messages; what is not there is made again."""
        if not path.exists():
            return {}
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {digest(row["messages"]): row["answer"] for row in rows}

    def _keep(self, path: Path, rows: list[dict[str, Any]]) -> None:
        kept = self._cached(path)
        new = [r for r in rows if digest(r["messages"]) not in kept]
        if new:
            old = path.read_text(encoding="utf-8") if path.exists() else ""
            lines = "".join(
                json.dumps({"messages": r["messages"], "answer": r["answer"]}, ensure_ascii=False) + "\n" for r in new
            )
            artifacts.write_file(path, (old + lines).encode())


def _key(row: Row) -> tuple[str, ...]:
    return answer_key(str(row["messages"][-1]["content"]), str(row["answer"]))
