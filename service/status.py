"""One picture of the daemon for `honed status`: who answers, who might, what is being learnt, how it goes."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from agent.acquisition.lift import lift, outcomes
from agent.served import ServedModel
from agent.serving import ModelLoader
from service.certainty import Certainty
from service.cycle import Cycle
from service.health import Health
from service.rollback import rollback_target
from service.rollout import Rollout
from store.interactions import Interactions
from store.labels import Labels
from store.records import TrainingRun
from store.registry import Registry
from store.runs import Runs


class Status:
    """Reads; changes nothing."""

    def __init__(
        self,
        *,
        registry: Registry,
        interactions: Interactions,
        labels: Labels,
        runs: Runs,
        loader: ModelLoader,
        rollout: Rollout,
        cycle: Cycle,
        health: Health,
        certainty: Certainty,
        address: str,
        model_name: str,
        started_at: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._interactions = interactions
        self._labels = labels
        self._runs = runs
        self._loader = loader
        self._rollout = rollout
        self._cycle = cycle
        self._health = health
        self._certainty = certainty
        self._fixed = {"address": address, "model": model_name, "base": loader.base_id, "started_at": started_at}
        self._clock = clock

    def picture(self) -> dict[str, Any]:
        base = self._loader.base_id
        serving = self._rollout.serving.current
        recorded = self._registry.champion(base)
        newest = next(iter(self._registry.promotions(limit=1)), None)
        return {
            **self._fixed,
            "champion": self._describe(serving, newest.created_at if newest else None),
            "recorded_champion": recorded,
            "previous": rollback_target(self._registry, base),
            "candidates": [self._candidate(checkpoint.id) for checkpoint in self._registry.candidates()],
            "refused": [{"checkpoint": r.checkpoint_id, "reason": r.reason} for r in self._rollout.refused],
            "device": self._device(),
            "ready": self._health.problem() is None,
            "problem": self._health.problem(),
            "requests": self._rollout.serving.num_active(),
            "certainty": self._judgements(serving.checkpoint_id),
            "learning": self._learning(),
            "interactions": self._interactions.count(),
            "feedback": self._interactions.count_feedback(),
            "questions": self._labels.count_open(),
            **self._asking(),
            "operators": [operator.name for operator in self._registry.operators()],
        }

    def _device(self) -> dict[str, Any]:
        """What computes, how fast while it did, and why not faster where something is missing."""
        return {
            "name": str(self._loader.device),
            "dtype": self._loader.weights,
            "tokens_per_second": self._rollout.serving.stats().tokens_per_second,
            "slow_because": self._loader.slow_because,
        }

    def _judgements(self, checkpoint_id: str) -> dict[str, Any] | None:
        """How well the champion's uncertainty tells wrong answers from right ones; None while too few were judged."""
        found = self._certainty.report(checkpoint_id)
        return asdict(found) if found else None

    def _asking(self) -> dict[str, Any]:
        """What each way of choosing questions found, and by how much picking found more than chance."""
        found = outcomes(self._labels.count_by_arm())
        gained = lift(found)
        arms = {arm.value: {**asdict(one), "share_wrong": one.share_wrong} for arm, one in found.items()}
        return {"asking": arms, "lift": asdict(gained) if gained else None}

    def _describe(self, served: ServedModel, since: float | None) -> dict[str, Any]:
        scope = served.bounds.scope.told() if served.bounds else None
        is_base = served.checkpoint_id == self._loader.base_id
        return {"id": served.checkpoint_id, "is_base": is_base, "since": since, "scope": scope}

    def _candidate(self, checkpoint_id: str) -> dict[str, Any]:
        verdict = self._registry.verdict_of(checkpoint_id)
        return {"id": checkpoint_id, "verdict": verdict.outcome.value if verdict else None}

    def _learning(self) -> dict[str, Any]:
        unfinished = self._runs.unfinished()
        recent = self._runs.recent(1)
        return {
            "state": unfinished[0].state.value if unfinished else "idle",
            "run": unfinished[0].id if unfinished else None,
            "last_run": run_json(recent[0]) if recent else None,
            "new_labels": self._cycle.num_new(self._cycle.recipe),
        }


def run_json(run: TrainingRun) -> dict[str, Any]:
    """A run as the command line shows it."""
    return {
        "id": run.id,
        "state": run.state.value,
        "trigger": run.trigger,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "attempt": run.attempt,
        "snapshot": run.snapshot_id,
        "checkpoint": run.checkpoint_id,
        "error": run.error,
    }
