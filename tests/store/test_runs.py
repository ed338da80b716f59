"""Snapshots and runs: what may change, until when, and who is found."""

import pytest

from store.database import StoreError
from store.records import RunState
from store.runs import RunIsOver, Runs, UnknownRun


@pytest.fixture(autouse=True)
def a_snapshot(runs: Runs, make) -> None:
    runs.add_snapshot(make.snapshot())


def test_a_snapshot_comes_back_as_it_went_in(runs: Runs, make) -> None:
    assert runs.snapshot("d1") == make.snapshot()
    assert runs.snapshot("d9") is None


def test_a_run_comes_back_by_id_and_by_the_beginning_of_it(runs: Runs, make) -> None:
    runs.create(make.run("abcdef"))
    runs.create(make.run("abcd%_"))
    assert runs.get("abcdef") == make.run("abcdef")
    assert runs.get("abcde").id == "abcdef"
    assert runs.get("abcd%").id == "abcd%_"
    assert runs.get("zzzz") is None
    assert runs.get("%%%%") is None


def test_an_ambiguous_or_short_beginning_is_refused_with_what_it_could_mean(runs: Runs, make) -> None:
    runs.create(make.run("abcdef"))
    runs.create(make.run("abcdxy"))
    with pytest.raises(StoreError, match="abcdef, abcdxy"):
        runs.get("abcd")
    with pytest.raises(StoreError, match="too short"):
        runs.get("abc")


def test_a_run_needs_its_snapshot(runs: Runs, make) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        runs.create(make.run(snapshot_id="d9"))


def test_update_changes_the_mutable_fields_and_gives_the_run(runs: Runs, make) -> None:
    runs.create(make.run())
    changed = runs.update("run-1", state=RunState.TRAINING, pid=42, pid_started_at=311.5, attempt=2)
    assert changed == make.run(state=RunState.TRAINING, pid=42, pid_started_at=311.5, attempt=2)
    assert runs.get("run-1") == changed
    assert runs.update("run-1", pid=None).pid is None


def test_heartbeat_sets_its_time(runs: Runs, make) -> None:
    runs.create(make.run())
    runs.heartbeat("run-1", 333.0)
    assert runs.get("run-1").heartbeat_at == 333.0


@pytest.mark.parametrize("field", ["recipe", "created_at", "snapshot_id", "nonsense", "state; DROP TABLE runs"])
def test_other_fields_never_change(runs: Runs, make, field: str) -> None:
    runs.create(make.run())
    with pytest.raises(StoreError, match="cannot change"):
        runs.update("run-1", **{field: "x"})


def test_a_state_that_does_not_exist_is_refused(runs: Runs, make) -> None:
    runs.create(make.run())
    with pytest.raises(ValueError, match="dreaming"):
        runs.update("run-1", state="dreaming")
    assert runs.get("run-1") == make.run()


def test_an_update_without_a_change_or_a_run_is_refused(runs: Runs) -> None:
    with pytest.raises(StoreError, match="nothing to change"):
        runs.update("run-1")
    with pytest.raises(UnknownRun, match="run-9"):
        runs.update("run-9", pid=1)


@pytest.mark.parametrize("state", [state for state in RunState if state.is_over])
def test_a_run_that_is_over_does_not_change_any_more(runs: Runs, make, state: RunState) -> None:
    runs.create(make.run())
    runs.update("run-1", state=state, finished_at=350.0)
    with pytest.raises(RunIsOver, match=str(state)):
        runs.update("run-1", state=RunState.TRAINING)
    with pytest.raises(RunIsOver):
        runs.heartbeat("run-1", 360.0)


def test_lists_tell_finished_from_unfinished(runs: Runs, make) -> None:
    for n in range(1, 5):
        runs.create(make.run(f"run-{n}"))
    runs.update("run-3", state=RunState.FAILED, finished_at=390.0, error="out of memory")
    runs.update("run-1", state=RunState.JUDGED, finished_at=380.0, checkpoint_id="aaaa1")
    runs.update("run-2", state=RunState.EVALUATING)
    assert [run.id for run in runs.unfinished()] == ["run-2", "run-4"]
    assert [run.id for run in runs.recent(3)] == ["run-4", "run-3", "run-2"]


def test_a_failure_is_tried_again_with_the_same_rows_and_a_second_one_is_not(runs: Runs, make) -> None:
    def settled(*ends: RunState) -> str | None:
        for state in ends:
            number = len(runs.recent(99)) + 1
            runs.create(make.run(f"run-{number}"))
            runs.update(f"run-{number}", state=state, finished_at=300.0 + number)
        found = runs.latest_settled()
        return found and found.id

    assert settled() is None
    assert settled(RunState.FAILED) is None
    assert settled(RunState.INTERRUPTED) == "run-2"
    assert settled(RunState.JUDGED) == "run-3"
    assert settled(RunState.FAILED) == "run-3"
    assert settled(RunState.FAILED) == "run-5"
