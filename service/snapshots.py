"""What people taught, as the sealed input of one run: admission, curation, files."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from agent import suites
from agent.clusters import spread
from agent.curation.contamination import asked_in
from agent.curation.judgements import judgement_screens
from agent.curation.lesson import Drop, Lesson, Screen
from agent.curation.pipeline import Curated, curate, screens
from agent.dataset import Dataset, DatasetSettings, build, repair_items
from agent.flattery import raters
from agent.recipe import Recipe
from agent.rundir import JUDGED, REPAIRS, SURVEY_FILE, TRAIN_INPUT, RunDirectory, assembled
from agent.scope import SCOPE_FILE, Scope, last_asked
from agent.split import together
from agent.taste import judged_items
from policies.admission import LearnFacts, may_hold, may_learn
from policies.engine import PolicySet
from service.judgements import Judged, judge
from service.models import SealedModel
from service.paths import Paths
from service.quota import Quota, newest_first
from store import artifacts
from store.audit import digest
from store.comparisons import Comparisons
from store.interactions import Interactions, Vector
from store.records import DatasetSnapshot, Feedback, Interaction

CONFIDENT_ROWS = 16
SUREST = 256  # answers that these are chosen among
NEAR = 0.5  # cosine to a taught question
SEALED = ("train.jsonl", "holdout.jsonl")
RATERS = "raters.jsonl"  # what each person's thumbs go with

Taught = list[tuple[Interaction, Feedback]]


class NotSaid(LookupError):
    """No standing feedback has this id."""


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What both child processes are told about the model and the machine."""

    base: SealedModel
    device: str
    dtype: str
    quantization: str
    threads: int
    max_context: int
    kernels: Path | None
    embedder: SealedModel

    def to_json(self) -> dict[str, Any]:
        """ArtifactError when a model's files are not the sealed ones: a child trusts what it is told to read."""
        for model in (self.base, self.embedder):
            artifacts.verify(model.path, model.id)
        return {
            "base_id": self.base.id,
            "base_dir": str(self.base.path),
            "device": self.device,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "threads": self.threads,
            "max_context": self.max_context,
            "kernels": str(self.kernels) if self.kernels else None,
            "embedder_id": self.embedder.id,
            "embedder_dir": str(self.embedder.path),
        }


class Snapshots:
    """Builds the directory that a training run reads. It appears whole or not at all. With `scope`, its adapter is to
    answer near the taught questions only. `first` are screens that come before the usual ones.
    """

    def __init__(
        self,
        *,
        interactions: Interactions,
        comparisons: Comparisons,
        policy_set: PolicySet,
        paths: Paths,
        child: ChildSettings,
        settings: DatasetSettings = DatasetSettings(),  # noqa: B008 - frozen
        scope: Callable[[Iterable[str]], Scope] | None = None,
        first: Sequence[Screen] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._comparisons = comparisons
        self._policy_set = policy_set
        self._paths = paths
        self._child = child
        self._survey = paths.cache / f"survey-{child.base.id}.safetensors"
        self._settings = settings
        self._scope = scope
        self._clock = clock
        asked = {name: suites.load(name) for name in ("retention", "flattery")}
        self._screens, self._judgement_screens = (*first, *screens(asked)), judgement_screens(asked)
        self._asked_in = asked_in(asked)
        self._known: tuple[int, Curated] | None = None
        self._lock = Lock()

    def taught(self) -> Taught:
        """The standing corrections worth learning, oldest first."""
        return [(lesson.interaction, lesson.feedback) for lesson in self.curated().kept]

    def curated(self) -> Curated:
        """Everything people said that stands: worth learning, or dropped with the reason. Worked out again when
        somebody has said something since.
        """
        with self._lock:
            num_feedback = self._interactions.count_feedback()
            if self._known is None or self._known[0] != num_feedback:
                admitted, refused = self._admitted()
                found = curate(admitted, self._screens)
                self._known = (num_feedback, Curated(found.kept, (*refused, *found.dropped)))
            return self._known[1]

    def judged(self) -> Judged:
        """Everything people prefer: worth learning, or dropped with the reason."""
        return judge(
            self.curated().kept,
            self._interactions.standing_feedback(),
            self._comparisons.standing(),
            self._interactions.get,
            policy_set=self._policy_set,
            screens=self._judgement_screens,
            settings=self._settings,
        )

    def explain(self, id_: str) -> dict[str, Any]:
        """Whether what was said, named by how its own id or its interaction's begins, would be learnt, and why not.
        NotSaid when there is no such word, or a later one stands; StoreError where several begin so.
        """
        id_ = self._interactions.id_beginning_with(id_) or id_
        standing = {about.id: word.id for about, word in self._interactions.standing_feedback()}
        feedback_id = standing.get(id_, id_)
        curated, judged = self.curated(), self.judged()
        told = _state(feedback_id, curated.kept, curated.dropped)
        preference = _state(feedback_id, judged.kept, judged.dropped)
        if told is None and preference is None:
            raise NotSaid(f"nothing that stands was said under {id_!r}; give the id of an interaction or of a feedback")
        lesson = told or {"state": "dropped", "rule": "not_a_correction", "reason": "there is no correction to learn"}
        return {"feedback": feedback_id, **lesson, "preference": preference}

    def _admitted(self) -> tuple[list[Lesson], list[Drop]]:
        """What policy lets be learnt, and what not."""
        quota = Quota(self._settings.max_per_person)
        admitted, refused = [], []
        for interaction, feedback in newest_first(self._interactions.standing_feedback(), lambda said: said[1]):
            texts = tuple(str(message["content"]) for message in interaction.messages)
            person = feedback.principal
            facts = LearnFacts(feedback, texts, quota.num_taken(person), principal_cap=quota.cap(person))
            ruling = may_learn(facts, self._policy_set)
            if ruling.allowed:
                quota.take(person)
                admitted.append(Lesson(interaction, feedback))
            else:
                refused.append(Drop(feedback.id, ruling.rules[0].id, ruling.reason))
        return admitted[::-1], refused[::-1]

    def prepare(self, run_id: str, recipe: Recipe) -> DatasetSnapshot:
        """Write the run directory of everything taught so far; ValueError when nothing is."""
        taught, said = self.taught(), self.judged()
        judged = said if recipe.has_preferences else Judged()
        dataset = build(
            taught,
            [] if recipe.sft.replay_is_text else self._confident(),  # nobody looked at those words
            suites.load("everyday"),
            self._settings,
            has_lessons=recipe.has_lessons,
            judged=judged.kept,
            groups=self._groups(taught) if self._settings.holdout_share else {},
        )
        _require_rows(dataset, recipe)
        # A taste is not of the questions that it showed in: what people prefer is learnt for everything.
        scope = self._scope(taught_questions(dataset)) if self._scope and not recipe.has_preferences else None
        with assembled(self._paths.run(run_id)) as run:
            run.write_rows("train.jsonl", dataset.train)
            run.write_rows("holdout.jsonl", dataset.holdout)
            run.write_rows(REPAIRS, repair_items(taught))
            run.write_rows(JUDGED, judged_items(said.kept))
            run.write_rows("dropped.jsonl", map(asdict, (*self.curated().dropped, *judged.dropped)))
            run.write_rows(RATERS, map(asdict, raters(self._interactions.standing_feedback())))
            if scope is not None:
                (run.path / SCOPE_FILE).write_bytes(scope.to_bytes())
            survey = str(self._survey) if self._survey.exists() else None
            job = {"run_id": run_id, "recipe": recipe.to_json(), "survey": survey, **self._child.to_json()}
            run.write(TRAIN_INPUT, job)
            return self._snapshot(dataset, run)

    def _confident(self) -> list[Interaction]:
        """The base's surest answers, one a kind of question: the very surest may all be to the same few. None that is
        near what is taught: held to what it says there, the model would learn against itself. None that policy keeps
        out, or that an evaluation asks.
        """
        surest = [one for one in self._interactions.confident(self._child.base.id, SUREST) if self._may_hold(one)]
        vectors = self._interactions.vectors_of([one.id for one in surest])
        taught = self._interactions.vectors_of([lesson.interaction.id for lesson in self.curated().kept])
        known = [one for one in surest if one.id in vectors and not _is_near(vectors[one.id], taught.values())]
        rows = np.array([vectors[one.id] for one in known], dtype=np.float32)
        return [known[place] for place in spread(rows, CONFIDENT_ROWS, np.random.default_rng(0))] if known else []

    def _groups(self, taught: Taught) -> dict[str, str]:
        """Conversations that ask alike: held out apart from each other, one would give the other's answer away."""
        found = self._interactions.vectors_of([interaction.id for interaction, _ in taught])
        none = np.zeros_like(next(iter(found.values()), np.zeros(1, dtype=np.float32)))
        rows = np.array([found.get(interaction.id, none) for interaction, _ in taught], dtype=np.float32)
        return together([interaction.conversation_id for interaction, _ in taught], rows)

    def _may_hold(self, interaction: Interaction) -> bool:
        return may_hold(interaction, self._policy_set).allowed and not self._asked_in(interaction.question)

    def keep_survey(self, run_id: str) -> None:
        """What a run had to find out of the base serves the next ones. A cache: it may be deleted."""
        made = self._paths.run(run_id) / SURVEY_FILE
        if made.exists():
            made.replace(self._survey)

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


def _is_near(vector: Vector, others: Iterable[Vector]) -> bool:
    return any(float(vector @ other) >= NEAR for other in others)


def taught_questions(dataset: Dataset) -> list[str]:
    """What its lessons are about, each in its own words: rewordings lie close by in any case."""
    taught = (row for row in dataset.train if row["kind"] == "lesson" and row["source"]["made_by"] == "person")
    return [last_asked(row["messages"]) for row in taught]


def _require_rows(dataset: Dataset, recipe: Recipe) -> None:
    kinds = {row["kind"] for row in dataset.train}
    if recipe.has_lessons and "lesson" not in kinds:
        raise ValueError("nothing to learn: no admitted correction; give some with `honed feedback` or `honed label`")
    if recipe.has_preferences and kinds.isdisjoint({"preference", "rated"}):
        raise ValueError("nothing to prefer: no admitted correction, thumb or better-of-two; see `honed data list`")


def _state(id_: str, kept: Sequence[Lesson], dropped: Sequence[Drop]) -> dict[str, Any] | None:
    """Whether that word would be learnt; None when it is not among these."""
    for drop in dropped:
        if drop.lesson_id == id_:
            return {"state": "dropped", "rule": drop.rule, "reason": drop.reason}
    if any(lesson.id == id_ for lesson in kept):
        return {"state": "kept", "rule": None, "reason": None}
    return None
