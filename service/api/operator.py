"""The operator's verbs, on the Unix socket only: status, questions, runs, reviews, decisions, the way back."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from agent.embedding import EmbedderError
from policies.engine import PolicyError
from service.access import LOCAL, Access, BadPrincipal
from service.api.errors import ApiError
from service.api.schemas import Envelope, LabelAnswer, NewKey, Reason
from service.api.strict import Strict
from service.certainty import Certainty
from service.clusters import MAX_CLUSTERS, Clusters
from service.config import is_within
from service.cycle import Cycle, NotStarted
from service.decisions import DecisionRefused, Decisions
from service.paths import Paths
from service.review import NoCandidate, Reviews
from service.rollout import NotLoaded, Rollout, RolloutError
from service.snapshots import NotSaid, Snapshots
from service.status import Status, run_json
from service.teaching import NothingSaid, Teaching
from store.api_keys import UnknownApiKey
from store.artifacts import ArtifactError
from store.database import StoreError
from store.labels import NotOpen
from store.records import ApiKey, Interaction, LabelTask, TrainingRun
from store.registry import Overtaken
from store.runs import Runs

METRICS_TAIL = 400


class TrainRequest(Strict):
    """Start a run now."""

    operator: str = "local"
    recipe: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OperatorParts:
    """Everything the operator's routes use."""

    status: Status
    teaching: Teaching
    cycle: Cycle
    runs: Runs
    reviews: Reviews
    decisions: Decisions
    rollout: Rollout
    snapshots: Snapshots
    clusters: Clusters
    certainty: Certainty
    access: Access
    paths: Paths
    quiet_hours: str


def router(parts: OperatorParts) -> APIRouter:
    """All operator routes over these parts."""
    routes = APIRouter(prefix="/operator")
    _add_reading(routes, parts)
    _add_labels(routes, parts)
    _add_runs(routes, parts)
    _add_decisions(routes, parts)
    _add_keys(routes, parts)
    return routes


def _add_reading(routes: APIRouter, parts: OperatorParts) -> None:
    @routes.get("/status")
    def status() -> dict[str, Any]:
        return parts.status.picture()

    @routes.get("/review")
    def review(checkpoint: str | None = None) -> dict[str, Any]:
        try:
            return parts.reviews.review(checkpoint)
        except (NoCandidate, StoreError) as error:
            raise ApiError(404, str(error), param="checkpoint", code="no_candidate") from None

    @routes.get("/data")
    def data() -> dict[str, Any]:
        curated = parts.snapshots.curated()
        return {"kept": len(curated.kept), "dropped": [asdict(drop) for drop in curated.dropped]}

    @routes.get("/documents")
    def documents() -> dict[str, Any]:
        return {"documents": parts.teaching.documents()}

    @routes.get("/clusters")
    def clusters(count: Annotated[int, Query(ge=1, le=MAX_CLUSTERS)] = 20) -> dict[str, Any]:
        return {"clusters": [asdict(cluster) for cluster in parts.clusters.found(count)]}

    @routes.get("/certainty")
    def certainty() -> dict[str, Any]:
        return {"checkpoints": parts.certainty.reports()}

    @routes.get("/data/{id_}")
    def explain(id_: str) -> dict[str, Any]:
        try:
            return parts.snapshots.explain(id_)
        except (NotSaid, StoreError) as error:
            raise ApiError(404, str(error), param="id", code="nothing_said") from None


def _add_labels(routes: APIRouter, parts: OperatorParts) -> None:
    @routes.get("/questions")
    def questions(limit: int = 50) -> dict[str, Any]:
        return {"questions": [_question(parts.teaching, *asked) for asked in parts.teaching.open_questions(limit)]}

    @routes.post("/questions/{task_id}")
    def answer(task_id: str, body: LabelAnswer) -> dict[str, Any]:
        try:
            task = parts.teaching.answer_label(task_id, LOCAL, body.action, body.correction, body.document)
        except NotOpen as error:
            raise ApiError(409, str(error), param="task_id", code="question_not_open") from None
        except StoreError as error:
            raise ApiError(404, str(error), param="task_id", code="question_not_found") from None
        except NothingSaid as error:
            raise ApiError(400, str(error), param="correction", code="invalid_value") from None
        return {"id": task.id, "state": task.state.value}


def _add_runs(routes: APIRouter, parts: OperatorParts) -> None:
    @routes.post("/train")
    def train(body: TrainRequest) -> dict[str, Any]:
        try:
            recipe = parts.cycle.recipe.changed(body.recipe)
            is_quiet = is_within(datetime.now().astimezone().time(), parts.quiet_hours)
            run = parts.cycle.start(f"operator:{body.operator}", is_quiet=is_quiet, recipe=recipe)
        except NotStarted as error:
            raise ApiError(409, str(error), code="not_started") from None
        except (ValueError, TypeError, EmbedderError, ArtifactError) as error:
            raise ApiError(409, str(error), code="not_started") from None
        return run_json(run)

    @routes.get("/runs")
    def runs(limit: int = 20) -> dict[str, Any]:
        return {"runs": [run_json(run) for run in parts.runs.recent(limit)]}

    @routes.get("/runs/{run_id}")
    def run(run_id: str) -> dict[str, Any]:
        try:
            found = parts.runs.get(run_id)
        except StoreError as error:
            raise ApiError(404, str(error), param="run_id", code="run_not_found") from None
        if found is None:
            raise ApiError(404, f"no run {run_id!r}", param="run_id", code="run_not_found")
        return {**run_json(found), "metrics": _metrics(parts.paths, found)}


def _add_decisions(routes: APIRouter, parts: OperatorParts) -> None:
    @routes.post("/decide")
    def decide(body: Envelope) -> dict[str, Any]:
        try:
            decided = parts.decisions.decide(body.envelope)
        except DecisionRefused as error:
            refused = error.refused
            raise ApiError(
                409, refused.message, param="envelope", code=refused.refusal.value, exit_code=refused.exit_code
            ) from None
        except (RolloutError, Overtaken) as error:
            raise ApiError(409, str(error), code="not_promoted") from None
        promotion = decided.promotion
        return {
            "candidate": decided.statement.candidate,
            "decision": decided.statement.decision.value,
            "approvals": decided.num_approvals,
            "promoted": promotion is not None,
            "previous": promotion.previous_id if promotion else None,
        }

    @routes.post("/rollback")
    def rollback(body: Reason) -> dict[str, Any]:
        try:
            promotion = parts.rollout.roll_back(actor="operator:local", reason=body.reason)
        except (RolloutError, Overtaken) as error:
            raise ApiError(409, str(error), code="no_rollback") from None
        except NotLoaded as error:
            raise ApiError(503, str(error), code="not_loaded") from None
        return {"champion": promotion.checkpoint_id, "previous": promotion.previous_id}

    @routes.post("/operators")
    def add_operator(body: Envelope) -> dict[str, Any]:
        try:
            operator = parts.decisions.add_operator(body.envelope)
        except PolicyError as error:
            raise ApiError(409, str(error), param="envelope", code="operator_refused") from None
        return {"name": operator.name, "key_id": operator.key_id}


def _add_keys(routes: APIRouter, parts: OperatorParts) -> None:
    @routes.get("/keys")
    def keys() -> dict[str, Any]:
        return {"keys": [_key(key) for key in parts.access.valid()]}

    @routes.post("/keys")
    def add_key(body: NewKey) -> dict[str, Any]:
        try:
            made = parts.access.add(body.principal)
        except BadPrincipal as error:
            raise ApiError(400, str(error), param="principal", code="invalid_value") from None
        return {**_key(made.record), "key": made.text}

    @routes.post("/keys/{key_id}/revoke")
    def revoke_key(key_id: str) -> dict[str, Any]:
        try:
            return _key(parts.access.revoke(key_id))
        except UnknownApiKey as error:
            raise ApiError(404, str(error), param="key_id", code="key_not_found") from None


def _key(key: ApiKey) -> dict[str, Any]:
    return {"id": key.id, "principal": key.principal, "created_at": key.created_at}


def _question(teaching: Teaching, task: LabelTask, turn: Interaction) -> dict[str, Any]:
    other = teaching.answer_of(task.other_id) if task.other_id else None
    return {
        "id": task.id,
        "interaction_id": turn.id,
        "score": task.score,
        "arm": task.arm,
        "reason": task.reason,
        "messages": list(turn.messages),
        "reply": turn.reply,
        "uncertainty": turn.uncertainty,
        "other_id": task.other_id,
        "other_reply": other.reply if other else None,
    }


def _metrics(paths: Paths, run: TrainingRun) -> list[dict[str, Any]]:
    """The newest lines of both phases' progress."""
    lines: list[dict[str, Any]] = []
    for directory in (paths.run(run.id), paths.run(run.id) / "evaluation"):
        file = directory / "metrics.jsonl"
        if file.exists():
            # the child may be writing its last line just now
            whole = [text for text in file.read_text(encoding="utf-8").splitlines(keepends=True) if text.endswith("\n")]
            lines += [json.loads(text) for text in whole[-METRICS_TAIL:]]
    return lines
