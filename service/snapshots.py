"""What people taught, as the sealed input of one run: admission, curation, files."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent import suites
from agent.dataset import Dataset, DatasetSettings, build
from agent.recipe import Recipe
from agent.rundir import TRAIN_INPUT, RunDirectory, assembled
from policies.admission import LearnFacts, may_learn
from policies.engine import PolicySet
from service.models import SealedModel
from service.paths import Paths
from store import artifacts
from store.audit import digest
from store.interactions import Interactions
from store.records import DatasetSnapshot, Feedback, Interaction

CONFIDENT_ROWS = 16
SEALED = ("train.jsonl", "holdout.jsonl")

Taught = list[tuple[Interaction, Feedback]]


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What both child processes are told about the model and the machine."""

    base: SealedModel
    device: str
    dtype: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        return {
            "base_id": self.base.id,
            "base_dir": str(self.base.path),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
        }


class Snapshots:
    """Builds the directory that a training run reads. It appears whole or not at all."""

    def __init__(
        self,
        *,
        interactions: Interactions,
        policy_set: PolicySet,
        paths: Paths,
        child: ChildSettings,
        settings: DatasetSettings = DatasetSettings(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._policy_set = policy_set
        self._paths = paths
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

    def prepare(self, run_id: str, recipe: Recipe) -> DatasetSnapshot:
        """Write the run directory of everything taught so far; ValueError when nothing is."""
        confident = self._interactions.confident(self._child.base.id, CONFIDENT_ROWS)
        dataset = build(self.taught(), confident, suites.load("everyday"), self._settings)
        if not any(row["kind"] == "lesson" for row in dataset.train):
            raise ValueError(
                "nothing to learn: no admitted correction; give some with `honed feedback` or `honed label`"
            )
        with assembled(self._paths.run(run_id)) as run:
            run.write_rows("train.jsonl", dataset.train)
            run.write_rows("holdout.jsonl", dataset.holdout)
            run.write_rows("dropped.jsonl", dataset.dropped)
            run.write(TRAIN_INPUT, {"run_id": run_id, "recipe": recipe.to_json(), **self._child.to_json()})
            return self._snapshot(dataset, run)

    def _snapshot(self, dataset: Dataset, run: RunDirectory) -> DatasetSnapshot:
        files = {name: artifacts.sha256_file(run.path / name) for name in SEALED}
        replay = sum(row["kind"] == "replay" for row in dataset.train)
        return DatasetSnapshot(
            id=digest(files),
            created_at=self._clock(),
            num_train=len(dataset.train) - replay,
            num_holdout=len(dataset.holdout),
            num_replay=replay,
            sources=dataset.sources,
        )
