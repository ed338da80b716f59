"""The learning cycle: may a run start, and each run's way from queued to judged.
One run at a time, advanced in small steps.

Every step can be repeated: a daemon that was killed between any two finds the run, its process and its files,
and goes on.
"""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import structlog

from agent.recipe import Recipe
from agent.rundir import RunDirectory
from policies.engine import PolicySet
from policies.promotion import has_only_forgotten, judge
from policies.training import TrainFacts, may_train
from service.evaluations import Evaluations
from service.paths import Paths
from service.sealing import seal
from service.snapshots import Snapshots
from service.supervisor import Child, ChildState, Supervisor
from store.audit import digest
from store.records import Checkpoint, Evaluation, Feedback, RunState, TrainingRun, Verdict
from store.registry import Registry
from store.runs import Runs

log = structlog.get_logger()

MAX_ATTEMPTS = 2
DISK_NEEDED = 2 << 30
SECOND_CHANCE = 0.7  # of what a candidate adds to the base, where it has forgotten too much
MODULES = {RunState.TRAINING: "agent.train", RunState.EVALUATING: "agent.evaluate"}


class NotStarted(RuntimeError):
    """Policy said no to a run; the message gives the rules' reasons."""


class Cycle:
    """Starts runs and moves them on. `advance` is for one thread (the scheduler's); anybody may start a run."""

    def __init__(
        self,
        *,
        runs: Runs,
        registry: Registry,
        snapshots: Snapshots,
        evaluations: Evaluations,
        supervisor: Supervisor,
        policy_set: PolicySet,
        paths: Paths,
        base_id: str,
        recipe: Recipe,
        min_labels: int,
        timeout_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runs = runs
        self._registry = registry
        self._snapshots = snapshots
        self._evaluations = evaluations
        self._supervisor = supervisor
        self._policy_set = policy_set
        self._paths = paths
        self._base_id = base_id
        self.recipe = recipe  # unless a run is given another
        self._min_labels = min_labels
        self._timeout = timeout_seconds
        self._clock = clock
        self._one_start = threading.Lock()

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────

    def num_new(self, recipe: Recipe) -> int:
        """Words that the recipe learns from, given since the newest run that came to a verdict was cut; or that failed,
        again.
        """
        last = self._runs.latest_settled()
        since = last.created_at if last else 0.0
        return sum(word.created_at > since for word in self._words(recipe))

    def _words(self, recipe: Recipe) -> Collection[Feedback]:
        """Everything that the recipe learns from, each once."""
        words = [feedback for _, feedback in self._snapshots.taught()]
        if recipe.has_preferences:
            words += [judgement.feedback for judgement in self._snapshots.judged().kept]
        return {word.id: word for word in words}.values()

    def start(self, trigger: str, *, is_quiet: bool, recipe: Recipe) -> TrainingRun:
        """Cut a snapshot and queue a run. NotStarted gives policy's reasons;
        an operator's word needs one new row only.
        """
        with self._one_start:  # between looking for a run under way and queueing this one
            return self._start(trigger, is_quiet=is_quiet, recipe=recipe)

    def _start(self, trigger: str, *, is_quiet: bool, recipe: Recipe) -> TrainingRun:
        is_operator = trigger.startswith("operator:")
        facts = TrainFacts(
            trigger=trigger,
            # an operator may train again on what was learnt before
            new_rows=self.num_new(recipe) or (len(self._words(recipe)) if is_operator else 0),
            is_run_active=bool(self._runs.unfinished()),
            disk_free=shutil.disk_usage(self._paths.state).free,
            disk_needed=DISK_NEEDED,
            is_quiet=is_quiet,
            min_rows=1 if is_operator else self._min_labels,
        )
        ruling = may_train(facts, self._policy_set)
        if not ruling.allowed:
            raise NotStarted(ruling.reason)
        run_id, cut_at = uuid.uuid4().hex, self._clock()  # what is said while it is cut is new after it
        snapshot = self._snapshots.prepare(run_id, recipe)
        if self._runs.snapshot(snapshot.id) is None:  # the same rows again are the same snapshot
            self._runs.add_snapshot(snapshot)
        run = TrainingRun(run_id, cut_at, trigger, self._base_id, snapshot.id, recipe.to_json())
        self._runs.create(run)
        self._registry.note("run.started", {"run": run.id, "trigger": trigger, "dataset": snapshot.id}, self._clock())
        log.info("run.queued", run=run.id, trigger=trigger, num_train=snapshot.num_train)
        return run

    # ── moving on ────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self) -> None:
        """Look at the unfinished run, if any, and take its next step."""
        for run in self._runs.unfinished():
            try:
                self._advance(run)
            except Exception as error:
                log.exception("run.broke", run=run.id)
                self._supervisor.stop(_child(self._runs.get(run.id) or run))
                self._end(run, RunState.FAILED, f"{type(error).__name__}: {error}")

    def stop_children(self) -> None:
        """At shutdown: end what runs. It starts again with the daemon, and that does not count as an attempt."""
        for run in self._runs.unfinished():
            if run.pid is not None:
                self._supervisor.stop(_child(run))
                self._runs.update(run.id, attempt=run.attempt - 1)

    def _advance(self, run: TrainingRun) -> None:
        if run.state is RunState.QUEUED:
            self._launch(run, RunState.TRAINING)
            return
        directory = self._directory(run)
        state = self._supervisor.state(_child(run), directory)
        if run.state is RunState.EVALUATING and state is not ChildState.RUNNING and not self._is_prepared(run):
            self._evaluate(run, self._candidate(run))  # killed on the way to a second chance
            return
        match state:
            case ChildState.RUNNING:
                self._watch(run)
            case ChildState.DONE if run.state is RunState.TRAINING:
                self._register(run)
            case ChildState.DONE:
                self._judge(run)
            case ChildState.FAILED:
                self._end(run, RunState.FAILED, self._supervisor.error(directory))
            case ChildState.LOST:
                self._take_up(run)

    def _launch(self, run: TrainingRun, state: RunState, **changes: Any) -> None:
        child = self._supervisor.start(MODULES[state], self._directory(run, state))
        now = self._clock()
        try:
            self._runs.update(
                run.id, state=state, pid=child.pid, pid_started_at=child.started_at, heartbeat_at=now, **changes
            )
        except BaseException:
            self._supervisor.stop(child)  # nobody would know of it
            raise
        log.info("run.launched", run=run.id, phase=state.value, pid=child.pid)

    def _watch(self, run: TrainingRun) -> None:
        now = self._clock()
        self._runs.heartbeat(run.id, now)
        child = _child(run)
        if child is not None and now - child.started_at > self._timeout:
            self._supervisor.stop(child)
            self._end(run, RunState.FAILED, f"it ran longer than {self._timeout:g} seconds and was stopped")

    def _take_up(self, run: TrainingRun) -> None:
        """Its process is gone without a word: begin this phase again, once."""
        if run.attempt >= MAX_ATTEMPTS:
            self._end(run, RunState.INTERRUPTED, f"its process was lost {run.attempt} times; start it again by hand")
            return
        log.warning("run.taken_up", run=run.id, attempt=run.attempt + 1)
        self._launch(run, run.state, attempt=run.attempt + 1)

    def _register(self, run: TrainingRun) -> None:
        """A finished adapter becomes a sealed checkpoint, and its evaluation starts."""
        champion = self._registry.champion(self._base_id)
        checkpoint = self._add(seal(self._paths, run, champion=champion, at=self._clock()))
        self._snapshots.keep_survey(run.id)
        self._evaluate(run, checkpoint)

    def _add(self, checkpoint: Checkpoint) -> Checkpoint:
        if self._registry.checkpoint(checkpoint.id) is None:
            self._registry.add_checkpoint(checkpoint)
        return checkpoint

    def _evaluate(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        self._runs.update(run.id, checkpoint_id=checkpoint.id)
        self._evaluations.prepare(run, checkpoint.id, checkpoint.parent_id)
        self._launch(run, RunState.EVALUATING)

    def _is_prepared(self, run: TrainingRun) -> bool:
        return self._evaluations.is_of(run.id, run.checkpoint_id or "")

    def _candidate(self, run: TrainingRun) -> Checkpoint:
        checkpoint = self._registry.checkpoint(run.checkpoint_id or "")
        if checkpoint is None:
            raise LookupError(f"run {run.id} names checkpoint {run.checkpoint_id!r}, which is not in the ledger")
        return checkpoint

    def _judge(self, run: TrainingRun) -> None:
        """The evaluation's figures and what policy says of them go on record together with the run's end. A candidate
        that only forgot too much is scaled back, once, and measured again.
        """
        checkpoint = self._candidate(run)
        results = RunDirectory(self._directory(run)).read("result.json")
        self._evaluations.keep_base_answers(run)
        evaluation = self._evaluation(run, checkpoint, results)
        if self._registry.evaluation(evaluation.id) is None:
            self._registry.add_evaluation(evaluation)
        verdict = self._registry.verdict_of(checkpoint.id)
        if verdict is None:
            verdict = self._verdict(evaluation)
            self._registry.add_verdict(verdict)
        if has_only_forgotten(rule.id for rule in verdict.rules) and "share" not in checkpoint.manifest:
            log.info("candidate.scaled_back", checkpoint=checkpoint.id, share=SECOND_CHANCE)
            less = seal(self._paths, run, champion=checkpoint.parent_id, at=self._clock(), share=SECOND_CHANCE)
            self._evaluate(run, self._add(less))
            return
        self._end(run, RunState.JUDGED, None)

    def _evaluation(self, run: TrainingRun, checkpoint: Checkpoint, results: dict[str, Any]) -> Evaluation:
        identity = {"checkpoint": checkpoint.id, "champion": checkpoint.parent_id, "run": run.id, "results": results}
        return Evaluation(digest(identity), self._clock(), checkpoint.id, checkpoint.parent_id, self._base_id, results)

    def _verdict(self, evaluation: Evaluation) -> Verdict:
        ruling = judge(evaluation.results, self._policy_set, candidate=evaluation.checkpoint_id)
        log.info(
            "verdict.given", checkpoint=evaluation.checkpoint_id, outcome=ruling.outcome.value, reason=ruling.reason
        )
        return Verdict(
            uuid.uuid4().hex,
            self._clock(),
            evaluation.checkpoint_id,
            evaluation.id,
            ruling.outcome,
            ruling.rules,
            ruling.facts,
            self._policy_set.id,
        )

    def _end(self, run: TrainingRun, state: RunState, error: str | None) -> None:
        self._runs.update(run.id, state=state, error=error, finished_at=self._clock())
        self._registry.note("run.ended", {"run": run.id, "state": state.value, "error": error}, self._clock())
        log.info("run.ended", run=run.id, state=state.value, error=error)

    def _directory(self, run: TrainingRun, state: RunState | None = None) -> Path:
        if (state or run.state) is RunState.EVALUATING:
            return self._evaluations.directory(run.id)
        return self._paths.run(run.id)


def _child(run: TrainingRun) -> Child | None:
    if run.pid is None or run.pid_started_at is None:
        return None
    return Child(run.pid, run.pid_started_at)
