"""The learning cycle: when a run may start, its way to a verdict, and what survives a death between any two steps."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load

from agent.recipe import Recipe, SftSettings
from agent.results import MODELS
from agent.rundir import SURVEY_FILE, WEIGHED, RunDirectory
from policies.engine import PolicySet, shipped
from service import models
from service.cli import review
from service.config import Settings
from service.cycle import Cycle, NotStarted
from service.daemon import Daemon
from service.evaluations import Evaluations
from service.models import SealedModel
from service.paths import Paths
from service.snapshots import ChildSettings, Snapshots
from service.stores import Stores, open_stores
from service.supervisor import Child, ChildState, Supervisor
from service.teaching import Teaching
from store import artifacts
from store.artifacts import ArtifactError
from store.records import FinishReason, Interaction, Rating, RunState, TrainingRun
from store.witness import compare
from tests import device
from tests.fakes import adapter_files
from tests.service.conftest import Desk, wait_until
from tests.service.ledger_fakes import RESULTS

SMALL = Recipe(rank=2, alpha=4, replay_tokens=4, sft=SftSettings(max_steps=2, warmup_steps=0, batch=2, replay_batch=2))
FACTS = ("alpha", "bravo", "charlie", "delta", "echo")


class Died(BaseException):
    """The daemon was killed here."""


class InstantChildren(Supervisor):
    """Children that finish before they are looked at, leaving what real ones leave."""

    def __init__(self) -> None:
        super().__init__(nice=0)

    def start(self, module: str, directory: Path) -> Child:
        run = RunDirectory(directory)
        if module == "agent.train":
            (directory / "adapter").mkdir(exist_ok=True)
            for name, data in adapter_files().items():
                (directory / "adapter" / name).write_bytes(data)
            if run.read("run.json")["survey"] is None:
                (directory / SURVEY_FILE).write_bytes(b"survey")
            run.write("result.json", {"loss": 0.1, "steps": 2.0, "num_lessons": 5, "versions": {"torch": "2"}})
        else:
            run.write_rows("base_answers.jsonl", [{"messages": [{"role": "user", "content": "?"}], "answer": "!"}])
            run.write("result.json", RESULTS)
            if run.read("evaluation.json")["weighed"] is None:
                (directory / WEIGHED).write_bytes(b"weighed")
        run.done()
        return Child(os.getpid(), 0.0)  # no process of ours started then


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the cycle needs of a daemon, without one that answers."""

    stores: Stores
    snapshots: Snapshots
    evaluations: Evaluations
    child: ChildSettings
    paths: Paths
    base: SealedModel
    policy_set: PolicySet


def teach(workshop: Workshop | Daemon, num: int = 5) -> None:
    teaching = Teaching(workshop.stores.interactions, workshop.stores.labels, workshop.stores.comparisons)
    for fact in FACTS[:num]:
        asked = ({"role": "user", "content": f"What is the code of {fact}?"},)
        turn = Interaction(
            uuid.uuid4().hex, fact, time.time(), "ann", workshop.base.id, asked, "?", FinishReason.STOP, (), 9, 0.1, 1.0
        )
        workshop.stores.interactions.append(turn)
        teaching.give_feedback(turn.id, "ann", correction=f"The code is {fact} 7714.")


def another_cycle(daemon: Workshop | Daemon, supervisor: Supervisor, **changes: Any) -> Cycle:
    """As a restarted daemon would build it over the same stores."""
    parts = {
        "runs": daemon.stores.runs,
        "registry": daemon.stores.registry,
        "snapshots": daemon.snapshots,
        "evaluations": daemon.evaluations,
        "supervisor": supervisor,
        "policy_set": daemon.policy_set,
        "paths": daemon.paths,
        "base_id": daemon.base.id,
        "recipe": Recipe(),
        "min_labels": 5,
        "timeout_seconds": 600.0,
    }
    return Cycle(**(parts | changes))


def start(cycle: Cycle, **changes: Any) -> TrainingRun:
    values = {"is_quiet": True, "recipe": SMALL} | changes
    return cycle.start(values.pop("trigger", "operator:ann"), **values)


def look(daemon: Workshop | Daemon, run: TrainingRun) -> TrainingRun:
    found = daemon.stores.runs.get(run.id)
    assert found is not None
    return found


@pytest.fixture
def workshop(tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Workshop]:
    settings = make_settings(tmp_path / "state")
    settings.paths.create()
    base = models.ensure(settings.model, settings.paths.models)
    stores = open_stores(settings)
    embedder = models.ensure(settings.embedder, settings.paths.models)
    child = ChildSettings(base, device.NAME, "float32", "none", 1, 1024, None, embedder)
    snapshots = Snapshots(
        interactions=stores.interactions,
        comparisons=stores.comparisons,
        policy_set=shipped(),
        paths=settings.paths,
        child=child,
    )
    evaluations = Evaluations(nearby=lambda *_: [], paths=settings.paths, child=child, computed_on="cpu-float32")
    yield Workshop(stores, snapshots, evaluations, child, settings.paths, base, shipped())
    stores.close()


@pytest.fixture
def taught(workshop: Workshop) -> Workshop:
    teach(workshop)
    return workshop


@pytest.fixture
def cycle(workshop: Workshop) -> Cycle:
    """One whose children finish at once."""
    return another_cycle(workshop, InstantChildren())


@pytest.fixture(scope="module")
def judged(tmp_path_factory, make_settings) -> Iterator[tuple[Desk, TrainingRun]]:
    """A run with real child processes, advanced by a daemon that was killed and started again before every step."""
    desk = Desk(Daemon(make_settings(tmp_path_factory.mktemp("cycle") / "state")))
    teach(desk.daemon)
    run = start(desk.daemon.cycle)
    supervisors: list[Supervisor] = []

    def is_over() -> bool:
        supervisors.append(Supervisor(nice=0))
        another_cycle(desk.daemon, supervisors[-1]).advance()
        return look(desk.daemon, run).state.is_over

    wait_until(is_over, seconds=120)
    for supervisor in supervisors:
        for process in supervisor._started.values():
            process.wait()
    yield desk, look(desk.daemon, run)
    desk.daemon.close()


def test_a_run_with_real_children_comes_to_a_verdict_though_its_daemon_dies_between_all_steps(judged):
    desk, run = judged
    assert (run.state, run.error, run.attempt) == (RunState.JUDGED, None, 1)
    (candidate,) = desk.daemon.stores.registry.candidates()
    assert run.checkpoint_id == candidate.id
    assert (candidate.run_id, candidate.parent_id, candidate.base_id) == (run.id, desk.daemon.base.id, run.base_id)
    manifest = artifacts.verify(desk.daemon.paths.checkpoint(candidate.id), candidate.id)
    assert manifest["dataset"] == run.snapshot_id == candidate.dataset_id
    assert manifest["recipe"] == SMALL.to_json()
    assert manifest["versions"].keys() == {"torch", "transformers", "peft", "trl"}
    verdict = desk.daemon.stores.registry.verdict_of(candidate.id)
    evaluation = desk.daemon.stores.registry.evaluation_of(candidate.id)
    assert verdict.evaluation_id == evaluation.id
    assert verdict.policy_id == desk.daemon.policy_set.id
    assert evaluation.results["suites"]["asked"]["candidate"]["num_items"] == 5
    assert evaluation.results["num_train"] == 15 or evaluation.results["num_train"] >= 5
    assert desk.daemon.stores.audit.verify().problems == ()
    assert desk.serving == desk.daemon.base.id  # and nothing of this changed who answers


def test_the_review_of_a_judged_candidate_tells_its_whole_story(judged):
    desk, run = judged
    review = desk.operator.get("/operator/review").json()
    assert (review["checkpoint"], review["run"], review["is_stale"]) == (run.checkpoint_id, run.id, False)
    assert review["dataset"]["num_train"] > 0
    assert review["rules"]
    assert {answer["suite"] for answer in review["answers"]} >= {"asked"}
    assert review["binds"]["candidate"] == run.checkpoint_id
    assert desk.operator.get(f"/operator/review?checkpoint={run.checkpoint_id[:8]}").json() == review
    assert desk.operator.get("/operator/review?checkpoint=0000000").status_code == 404


def test_a_runs_progress_and_end_can_be_watched(judged):
    desk, run = judged
    (listed,) = desk.operator.get("/operator/runs").json()["runs"]
    watched = desk.operator.get(f"/operator/runs/{run.id}").json()
    assert (listed["id"], listed["state"]) == (watched["id"], watched["state"]) == (run.id, "judged")
    assert {line["phase"] for line in watched["metrics"]} >= {"load", "train", "ask candidate"}
    assert desk.operator.get("/operator/runs/none").status_code == 404
    learning = desk.operator.get("/operator/status").json()["learning"]
    assert (learning["state"], learning["new_labels"], learning["last_run"]["id"]) == ("idle", 0, run.id)


def test_what_was_taught_before_a_verdict_is_not_new_after_it_but_an_operator_may_train_again(judged):
    desk, _ = judged
    with pytest.raises(NotStarted):
        start(desk.daemon.cycle, trigger="schedule")
    run = start(another_cycle(desk.daemon, InstantChildren()))
    cycle = another_cycle(desk.daemon, InstantChildren())
    wait_until(lambda: cycle.advance() or look(desk.daemon, run).state.is_over)
    assert look(desk.daemon, run).state is RunState.JUDGED
    assert look(desk.daemon, run).snapshot_id == desk.daemon.stores.runs.recent(2)[1].snapshot_id  # the same rows


def test_what_is_replayed_of_the_log_is_sure_and_of_different_kinds(taught):
    log = taught.stores.interactions
    asked = [("hello", 0.1)] * 20 + [("what is water", 0.2), ("who are you", 0.9)] + [("hello again", 0.3)] * 5
    kept_out = ["my key is AKIAIOSFODNN7EXAMPLE", "call 555-867-5309", "What is the capital of France?", "long " * 600]
    asked += [(question, 0.05) for question in kept_out]
    kinds = {"hello": [1.0, 0.0, 0.0], "hello again": [1.0, 0.0, 0.0], "what is water": [0.0, 1.0, 0.0]}
    kinds |= {question: [-1.0, 0.0, 0.0] for question in kept_out}
    for number, (question, uncertainty) in enumerate(asked):
        messages = ({"role": "user", "content": question},)
        turn = Interaction(
            f"sure-{number}",
            "c",
            1.0,
            "ann",
            taught.base.id,
            messages,
            "!",
            FinishReason.STOP,
            (),
            len(question.split()),
            0.1,
            uncertainty,
        )
        log.append(turn)
        vector = kinds.get(question, [0.0, 0.0, 1.0])
        log.add_score(turn.id, vector, 0.5, 0.5, 1.0, question=number, uncertainty=uncertainty)
    rows = taught.snapshots.prepare("r", SMALL) and RunDirectory(taught.paths.run("r")).rows("train.jsonl")
    replayed = [row["messages"][0]["content"] for row in rows if row["source"]["made_by"] == "model"]
    assert replayed == ["hello", "what is water", "who are you"]


def test_a_run_is_asked_what_stood_when_it_was_cut_whatever_was_said_since(workshop, cycle):
    teach(workshop, 4)
    run = start(cycle)
    teach(workshop)
    while not look(workshop, run).state.is_over:
        cycle.advance()
    items = RunDirectory(workshop.evaluations.directory(run.id)).rows("items.jsonl")
    assert sum(item["suite"] == "asked" for item in items) == 4
    assert cycle.num_new(Recipe()) == 5  # also what was said again


def test_a_base_that_was_changed_on_the_disk_is_neither_trained_on_nor_measured_with(taught, cycle):
    run = start(cycle)
    (weights,) = taught.base.path.glob("*.safetensors")
    whole = weights.read_bytes()
    try:
        weights.chmod(0o600)
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        while not look(taught, run).state.is_over:
            cycle.advance()
        assert "was changed: sha256" in str(look(taught, run).error)
        with pytest.raises(ArtifactError, match="was changed"):
            start(cycle)
    finally:
        weights.write_bytes(whole)


def test_a_child_that_cannot_be_recorded_is_stopped(taught, monkeypatch):
    children = Supervisor(nice=0)
    cycle = another_cycle(taught, children)
    run = start(cycle)

    def full(*_: Any, **__: Any) -> None:
        monkeypatch.undo()  # later writes go through
        raise OSError("no space left on device")

    monkeypatch.setattr(taught.stores.runs, "update", full)
    cycle.advance()
    assert (look(taught, run).state, look(taught, run).error) == (RunState.FAILED, "OSError: no space left on device")
    assert [process.poll() for process in children._started.values()] == []  # reaped


# ── dying at any moment ──────────────────────────────────────────────────────────────────────────────────────────────


class Writes:
    """Counts what is written durably to both databases, and dies before one of them."""

    def __init__(self, daemon: Workshop, patch: pytest.MonkeyPatch) -> None:
        self.num = 0
        self.dies_before = -1
        for database in (daemon.stores.log, daemon.stores.ledger):
            patch.setattr(database, "write", self._counting(database.write))

    def _counting(self, write: Any) -> Any:
        def counted(job: Any) -> Any:
            self.num += 1
            if self.num == self.dies_before:
                raise Died
            return write(job)

        return counted


def go_on(daemon: Workshop, children: Callable[[], Supervisor] = InstantChildren) -> TrainingRun:
    """What a started daemon does, until a run is over; a person starts one if none was left."""
    if not daemon.stores.runs.recent(1):
        start(another_cycle(daemon, children()))
    cycle = another_cycle(daemon, children())
    wait_until(lambda: cycle.advance() or not daemon.stores.runs.unfinished())
    return daemon.stores.runs.recent(1)[0]


class ForgetfulChildren(InstantChildren):
    """Measures a candidate that forgot a tenth of what the base knew, unless it was scaled back."""

    def __init__(self, *, still: bool = False) -> None:
        super().__init__()
        self._still = still

    def start(self, module: str, directory: Path) -> Child:
        child = super().start(module, directory)
        if module == "agent.evaluate":
            run = RunDirectory(directory)
            manifest = json.loads(
                (Path(run.read("evaluation.json")["candidate_adapter"]) / "manifest.json").read_text()
            )
            kept = 100 if "share" in manifest and not self._still else 90
            run.write("result.json", RESULTS | {"suites": suites_with(retention=kept)})
            side = {"answer": "!", "is_right": True, "is_exact": True}
            run.write_rows("answers.jsonl", [{"suite": "asked", "question": "?"} | dict.fromkeys(MODELS, side)])
        return child


def suites_with(retention: int) -> dict[str, Any]:
    """A hundred items each; the candidate has learnt all it was taught, and keeps so many."""

    def side(right: int) -> dict[str, Any]:
        return {"num_right": right, "num_exact": 0, "num_items": 100, "low": 0.0, "high": 1.0}

    taught = {"candidate": side(100), "champion": side(0), "base": side(0)}
    kept = {"candidate": side(retention), "champion": side(100), "base": side(100)}
    return {"asked": taught, "paraphrase": taught, "holdout": taught, "retention": kept}


def verdicts(daemon: Workshop) -> dict[float, str]:
    """By the share of what was learnt that a candidate keeps."""
    registry = daemon.stores.registry
    return {one.manifest.get("share", 1.0): registry.verdict_of(one.id).outcome.value for one in registry.checkpoints()}


def test_a_candidate_that_only_forgot_too_much_is_scaled_back_and_measured_again(taught):
    run = go_on(taught, ForgetfulChildren)
    assert verdicts(taught) == {1.0: "fail", 0.7: "pass"}
    assert taught.stores.registry.checkpoint(run.checkpoint_id).manifest["share"] == 0.7
    whole, less = (
        load((taught.paths.checkpoint(one.id) / "adapter_model.safetensors").read_bytes())
        for one in sorted(taught.stores.registry.checkpoints(), key=lambda one: "share" in one.manifest)
    )
    for name, value in whole.items():
        assert torch.allclose(less[name], value * (0.7 if "lora_B" in name else 1.0))


def test_there_is_no_third_chance(taught):
    run = go_on(taught, lambda: ForgetfulChildren(still=True))
    assert run.state is RunState.JUDGED
    assert verdicts(taught) == {1.0: "fail", 0.7: "fail"}


@pytest.mark.parametrize("moment", range(1, 20))
def test_a_daemon_killed_on_the_way_to_a_second_chance_judges_both_by_their_own_measurements(
    taught, monkeypatch, moment
):
    with monkeypatch.context() as patch:
        Writes(taught, patch).dies_before = moment
        with contextlib.suppress(Died):
            go_on(taught, ForgetfulChildren)
    run = go_on(taught, ForgetfulChildren)
    assert (run.state, run.error) == (RunState.JUDGED, None)
    assert verdicts(taught) == {1.0: "fail", 0.7: "pass"}
    assert taught.stores.audit.verify().problems == ()


def test_a_daemon_killed_while_the_second_evaluation_took_the_place_of_the_first_prepares_it_again(taught):
    start(another_cycle(taught, ForgetfulChildren()))
    cycle = another_cycle(taught, ForgetfulChildren())
    wait_until(lambda: cycle.advance() or len(taught.stores.registry.checkpoints()) == 2)
    (run,) = taught.stores.runs.unfinished()
    shutil.rmtree(taught.evaluations.directory(run.id))
    run = go_on(taught, ForgetfulChildren)
    assert (run.state, run.error) == (RunState.JUDGED, None)
    assert verdicts(taught) == {1.0: "fail", 0.7: "pass"}


def test_a_review_shows_a_candidates_own_answers_or_none(make_daemon, capsys):
    daemon = make_daemon()
    teach(daemon)
    run = go_on(daemon, ForgetfulChildren)
    (first,) = [one for one in daemon.stores.registry.checkpoints() if one.id != run.checkpoint_id]
    desk = Desk(daemon)
    of_first, of_second = (
        desk.operator.get(f"/operator/review?checkpoint={id_}").json() for id_ in (first.id, run.checkpoint_id)
    )
    assert of_second["answers"]
    assert of_first["answers"] == []
    review.show(of_first)
    assert "its answers are not kept any more" in capsys.readouterr().out


@pytest.mark.parametrize("moment", range(1, 13))
def test_a_daemon_killed_before_any_write_goes_on_and_judges_once(taught, monkeypatch, moment):
    daemon = taught
    with monkeypatch.context() as patch:
        writes = Writes(daemon, patch)
        writes.dies_before = moment
        try:
            go_on(daemon)
        except Died:
            pass
        else:
            assert writes.num < moment, "every write of a run is one of the moments"
    run = go_on(daemon)
    assert (run.state, run.error) == (RunState.JUDGED, None)
    assert len(daemon.stores.runs.recent(9)) == 1
    (candidate,) = daemon.stores.registry.checkpoints()
    assert run.checkpoint_id == candidate.id
    with daemon.stores.ledger.read() as db:
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("evaluations", "verdicts")]  # noqa: S608
    assert counts == [1, 1]
    artifacts.verify(daemon.paths.checkpoint(candidate.id), candidate.id)
    assert daemon.stores.audit.verify().problems == ()
    assert compare(daemon.stores.ledger, daemon.stores.audit) == ()


def test_a_run_has_no_more_writes_than_the_moments_tried(taught, monkeypatch):
    writes = Writes(taught, monkeypatch)
    go_on(taught)
    assert writes.num < 13


# ── children that end badly ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_child_is_taken_up_once_and_then_the_run_is_interrupted(taught):
    daemon, supervisor = taught, Supervisor(nice=0)
    cycle = another_cycle(daemon, supervisor)
    run = start(cycle)
    for attempt in (1, 2):
        cycle.advance()
        now = look(daemon, run)
        assert (now.state, now.attempt) == (RunState.TRAINING, attempt)
        os.kill(now.pid, signal.SIGKILL)
        child = Child(now.pid, now.pid_started_at)
        wait_until(lambda child=child: supervisor.state(child, daemon.paths.run(run.id)) is ChildState.LOST)
    cycle.advance()
    assert look(daemon, run).state is RunState.INTERRUPTED
    assert "lost 2 times" in look(daemon, run).error
    assert daemon.stores.registry.checkpoints() == []
    start(cycle)  # and the next may start


def test_a_child_whose_daemon_died_before_recording_it_is_taken_over_and_not_doubled(taught):
    daemon, supervisor = taught, Supervisor(nice=0)
    run = start(another_cycle(daemon, supervisor))
    directory = daemon.paths.run(run.id)
    child = supervisor.start("agent.train", directory)  # and the daemon dies: the run is still queued
    wait_until(lambda: RunDirectory(directory).worker() is not None)
    after = another_cycle(daemon, Supervisor(nice=0))
    after.advance()
    assert look(daemon, run).pid == child.pid
    after.stop_children()
    supervisor.stop(child)  # reaps it


def test_a_child_that_fails_ends_the_run_with_its_message(taught):
    daemon = taught
    cycle = another_cycle(daemon, Supervisor(nice=0))
    run = start(cycle)
    (daemon.paths.run(run.id) / "run.json").write_text("[]")
    wait_until(lambda: cycle.advance() or look(daemon, run).state.is_over)
    assert look(daemon, run).state is RunState.FAILED
    assert "expected an object" in look(daemon, run).error
    assert daemon.stores.audit.newest("run.ended").body["state"] == "failed"


def test_a_result_that_is_no_adapter_ends_the_run_not_the_daemon(taught):
    daemon = taught
    cycle = another_cycle(daemon, InstantChildren())
    run = start(cycle)
    cycle.advance()
    (daemon.paths.run(run.id) / "adapter" / "adapter_model.safetensors").unlink()
    cycle.advance()
    assert look(daemon, run).state is RunState.FAILED
    assert "adapter_model.safetensors" in look(daemon, run).error


def test_a_child_that_takes_too_long_is_stopped_with_its_family(taught):
    daemon = taught
    cycle = another_cycle(daemon, Supervisor(nice=0), timeout_seconds=0.0)
    run = start(cycle)
    cycle.advance()
    pid = look(daemon, run).pid
    cycle.advance()
    assert look(daemon, run).state is RunState.FAILED
    assert "longer than 0 seconds" in look(daemon, run).error
    assert not psutil.pid_exists(pid)


def test_a_daemon_that_stops_ends_its_child_and_the_next_one_takes_the_run_up_without_counting_it(taught):
    daemon = taught
    cycle = another_cycle(daemon, Supervisor(nice=0))
    run = start(cycle)
    cycle.advance()
    pid = look(daemon, run).pid
    cycle.stop_children()
    assert not psutil.pid_exists(pid)
    after = another_cycle(daemon, InstantChildren())
    wait_until(lambda: after.advance() or look(daemon, run).state.is_over)
    assert (look(daemon, run).state, look(daemon, run).attempt) == (RunState.JUDGED, 1)


def test_a_process_with_a_reused_pid_is_not_taken_for_the_child(tmp_path):
    supervisor = Supervisor(nice=0)
    stranger = psutil.Process()
    assert supervisor.state(Child(stranger.pid, stranger.create_time() - 100), tmp_path) is ChildState.LOST
    supervisor.stop(Child(stranger.pid, stranger.create_time() - 100))  # and is not stopped either
    assert supervisor.state(Child(stranger.pid, stranger.create_time()), tmp_path) is ChildState.RUNNING
    assert supervisor.state(None, tmp_path) is ChildState.LOST


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_schedule_waits_for_enough_labels(workshop, cycle):
    teach(workshop, 4)
    with pytest.raises(NotStarted, match=r"\w"):
        start(cycle, trigger="schedule")
    teach(workshop, 4)  # the same again is nothing new to learn
    with pytest.raises(NotStarted, match=r"\w"):
        start(cycle, trigger="schedule")
    teach(workshop, 5)
    assert start(cycle, trigger="schedule").state is RunState.QUEUED


def test_the_schedule_keeps_to_quiet_hours_and_an_operator_need_not(taught, cycle):
    with pytest.raises(NotStarted, match="quiet"):
        start(cycle, trigger="schedule", is_quiet=False)
    assert start(cycle, trigger="operator:ann", is_quiet=False).state is RunState.QUEUED


def test_one_run_at_a_time(taught, cycle):
    first = start(cycle)
    for trigger in ("schedule", "operator:ann"):
        with pytest.raises(NotStarted, match="run"):
            start(cycle, trigger=trigger)
    assert [run.id for run in taught.stores.runs.unfinished()] == [first.id]


def test_an_operator_needs_one_lesson_and_nothing_is_left_when_there_is_none(workshop, cycle):
    with pytest.raises(NotStarted):
        start(cycle)
    assert workshop.stores.runs.recent(9) == []
    assert list(workshop.paths.runs.iterdir()) == []
    teach(workshop, 1)
    assert start(cycle).state is RunState.QUEUED


def test_two_who_start_at_the_same_moment_get_one_run(taught, cycle):
    together = threading.Barrier(4)
    refused: list[NotStarted] = []

    def press() -> None:
        together.wait()
        try:
            start(cycle)
        except NotStarted as error:
            refused.append(error)

    threads = [threading.Thread(target=press) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert len(taught.stores.runs.unfinished()) == 1


@pytest.mark.parametrize(
    "recipe",
    [
        {"wibble": 1},
        {"rank": 0},
        {"rank": "many"},
        {"rank": None},
        {"sft": {"max_steps": -1}},
        {"sft": {"wibble": 1}},
        {"sft": 3},
    ],
)
def test_a_recipe_that_cannot_be_starts_nothing(judged, recipe):
    desk, _ = judged
    before = len(desk.daemon.stores.runs.recent(9))
    response = desk.operator.post("/operator/train", json={"recipe": recipe})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_started")
    assert len(desk.daemon.stores.runs.recent(9)) == before


def test_what_a_run_found_out_of_the_base_is_kept_and_given_to_the_next(taught):
    cycle = another_cycle(taught, InstantChildren())
    first = start(cycle)
    assert RunDirectory(taught.paths.run(first.id)).read("run.json")["survey"] is None
    while not look(taught, first).state.is_over:
        cycle.advance()
    second = start(cycle)
    kept = Path(RunDirectory(taught.paths.run(second.id)).read("run.json")["survey"])
    assert kept.read_bytes() == b"survey"
    assert kept.parent == taught.paths.cache
    assert not (taught.paths.run(first.id) / SURVEY_FILE).exists()


def test_what_the_base_made_of_the_same_is_kept_and_given_to_the_next_evaluation(taught):
    cycle = another_cycle(taught, InstantChildren())
    jobs = []
    for _ in range(2):
        run = start(cycle)
        while not look(taught, run).state.is_over:
            cycle.advance()
        jobs.append(RunDirectory(taught.evaluations.directory(run.id)).read("evaluation.json")["weighed"])
    assert jobs[0] is None
    assert Path(jobs[1]).read_bytes() == b"weighed"
    assert Path(jobs[1]).parent == taught.paths.cache


def test_what_the_base_made_in_another_precision_is_made_anew(taught):
    cycle = another_cycle(taught, InstantChildren())
    run = start(cycle)
    while not look(taught, run).state.is_over:
        cycle.advance()
    found = {}
    for computed_on in ("cpu-float32", "cpu-bfloat16"):
        evaluations = Evaluations(nearby=lambda *_: [], paths=taught.paths, child=taught.child, computed_on=computed_on)
        shutil.rmtree(evaluations.directory(run.id))
        evaluations.prepare(look(taught, run), str(look(taught, run).checkpoint_id), taught.base.id)
        found[computed_on] = RunDirectory(evaluations.directory(run.id)).read("evaluation.json")["weighed"]
    assert Path(found["cpu-float32"]).read_bytes() == b"weighed"
    assert found["cpu-bfloat16"] is None


@pytest.mark.parametrize(("method", "num_judged"), [("sft", 0), ("sft+preference", 1)])
def test_what_people_judged_is_measured_with_every_candidate_taught_or_not(taught, method, num_judged):
    about = taught.stores.interactions.recent(9)[-1]
    thumbed = replace(about, id=uuid.uuid4().hex, reply="It is brass, I would say.")
    taught.stores.interactions.append(thumbed)
    teaching = Teaching(taught.stores.interactions, taught.stores.labels, taught.stores.comparisons)
    teaching.give_feedback(thumbed.id, "bob", rating=Rating.UP)
    cycle = another_cycle(taught, InstantChildren())
    run = start(cycle, recipe=SMALL.changed({"method": method}))
    while not look(taught, run).state.is_over:
        cycle.advance()
    evaluation = RunDirectory(taught.evaluations.directory(run.id))
    assert [row["answer"] for row in evaluation.rows("judged.jsonl")] == [thumbed.reply]
    assert evaluation.read("evaluation.json")["num_judged"] == num_judged


def test_the_run_directory_holds_only_admitted_rows_with_their_sources(taught, cycle):
    run = start(cycle)
    rows = RunDirectory(taught.paths.run(run.id)).rows("train.jsonl")
    lessons = [row for row in rows if row["kind"] == "lesson"]
    assert {row["source"]["made_by"] for row in lessons} == {"person", "wording"}
    assert {row["answer"] for row in lessons} == {f"The code is {fact} 7714." for fact in FACTS}
    assert json.loads((taught.paths.run(run.id) / "run.json").read_text())["recipe"] == SMALL.to_json()
