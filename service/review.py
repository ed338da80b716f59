"""What an operator looks at before deciding:
figures with intervals, the rules, rows by source, answers with the worst losses first.
"""

from dataclasses import asdict
from statistics import median
from typing import Any

from agent.results import NEARBY
from agent.rundir import RunDirectory
from policies.engine import PolicySet
from service.evaluations import Evaluations
from service.paths import Paths
from service.snapshots import RATERS
from store.records import Checkpoint, Decision
from store.registry import Registry
from store.runs import Runs

MAX_ANSWERS = 40
MIN_EARLIER = 3  # checkpoints of earlier runs, from which it is known how far is usual
FAR = 1.3  # times the usual: nights of 5 to 25 facts moved 3.2 to 3.9, a plain LoRA that forgot nearly all 5.7


class NoCandidate(LookupError):
    """There is nothing to review, or not under that id."""


class Reviews:
    """Reads the ledger and the evaluation's files; decides nothing."""

    def __init__(
        self,
        *,
        registry: Registry,
        runs: Runs,
        evaluations: Evaluations,
        paths: Paths,
        policy_set: PolicySet,
        base_id: str,
        approvals_required: int,
    ) -> None:
        self._registry = registry
        self._runs = runs
        self._evaluations = evaluations
        self._paths = paths
        self._policy_set = policy_set
        self._base_id = base_id
        self._required = approvals_required

    def review(self, wanted: str | None) -> dict[str, Any]:
        """Everything about one candidate: the newest, or the one whose id begins with `wanted`."""
        checkpoint = self._find(wanted)
        evaluation = self._registry.evaluation_of(checkpoint.id)
        verdict = self._registry.verdict_of(checkpoint.id)
        snapshot = self._runs.snapshot(checkpoint.dataset_id)
        champion = self._registry.champion(self._base_id)
        return {
            "checkpoint": checkpoint.id,
            "created_at": checkpoint.created_at,
            "run": checkpoint.run_id,
            "is_stale": checkpoint.parent_id != champion,
            "verdict": verdict.outcome.value if verdict else None,
            "rules": [asdict(rule) for rule in verdict.rules] if verdict else [],
            "facts": dict(verdict.facts) if verdict else {},
            "results": dict(evaluation.results) if evaluation else {},
            "dataset": asdict(snapshot) if snapshot else {},
            "training": dict(checkpoint.manifest.get("training", {})),
            "scope": checkpoint.manifest.get("scope"),
            "share": checkpoint.manifest.get("share", 1.0),
            "approvals": [
                {"operator": a.operator, "decision": a.decision.value, "reason": a.reason, "at": a.created_at}
                for a in self._registry.approvals_of(checkpoint.id)
            ],
            "approvals_required": self._required,
            "is_rejected": any(a.decision is Decision.REJECT for a in self._registry.approvals_of(checkpoint.id)),
            **self._answers(checkpoint),
            "raters": self._raters(checkpoint),
            "moved": self._moved(checkpoint),
            # What a decision will be bound to:
            "binds": {
                "candidate": checkpoint.id,
                "champion": champion,
                "base": self._base_id,
                "policy": self._policy_set.id,
                "evaluation": evaluation.id if evaluation else "",
                "dataset": checkpoint.dataset_id,
            },
        }

    def _find(self, wanted: str | None) -> Checkpoint:
        if wanted:
            checkpoint = self._registry.checkpoint(wanted)
            if checkpoint is None:
                raise NoCandidate(f"no checkpoint begins with {wanted!r}; `honed status` lists the candidates")
            return checkpoint
        candidates = self._registry.candidates()
        if not candidates:
            raise NoCandidate("no candidate is waiting; `honed train` makes one from the corrections given so far")
        return candidates[0]

    def _answers(self, checkpoint: Checkpoint) -> dict[str, list[dict[str, Any]]]:
        """Side by side, the worst first: lost against the champion, wrong on what was taught, then the rest; and of
        what was asked near what was taught, where they differ. Its own only, which are gone once its second chance was
        measured.
        """
        directory = self._evaluations.directory(checkpoint.run_id)
        is_own = self._evaluations.is_of(checkpoint.run_id, checkpoint.id)
        if not is_own or not (directory / "answers.jsonl").exists():
            return {"answers": [], "nearby": []}
        lines = RunDirectory(directory).rows("answers.jsonl")
        judged = [line for line in lines if line["suite"] != NEARBY]
        nearby = [line for line in lines if line["suite"] == NEARBY]
        changed = [line for line in nearby if line["candidate"]["answer"] != line["champion"]["answer"]]
        return {"answers": sorted(judged, key=_badness, reverse=True)[:MAX_ANSWERS], "nearby": changed[:MAX_ANSWERS]}

    def _raters(self, checkpoint: Checkpoint) -> list[dict[str, Any]]:
        """What each person's thumbs went with when the run was cut, the most alarming first."""
        run = RunDirectory(self._paths.run(checkpoint.run_id))
        return run.rows(RATERS) if (run.path / RATERS).exists() else []

    def _moved(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """How far it moved from the base on what it was taught, beside the checkpoints of earlier runs: much farther
        than usual foretells that more is forgotten.
        """
        now = _distance(checkpoint)
        if now is None:
            return None
        earlier = [
            found
            for one in self._registry.checkpoints()
            if one.created_at < checkpoint.created_at and one.run_id != checkpoint.run_id
            if one.base_id == checkpoint.base_id and (found := _distance(one)) is not None
        ]
        usual = median(earlier) if len(earlier) >= MIN_EARLIER else None
        return {"nats": now, "usual": usual, "is_alarm": usual is not None and now > FAR * usual}


def _distance(checkpoint: Checkpoint) -> float | None:
    """KL to the base in nats a token over what it was taught; runs that only learnt preferences tell none."""
    found = dict(checkpoint.manifest.get("training", {})).get("moved")
    return None if found is None else float(found)


def _badness(line: dict[str, Any]) -> tuple[bool, bool, bool]:
    is_right, was_right = line["candidate"]["is_right"], line["champion"]["is_right"]
    return (was_right and not is_right, not is_right and line["suite"] != "retention", is_right and not was_right)
