"""What may serve: exactly the sealed bytes, and only with an approval that holds. Everything else is passed over by name."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from service.daemon import Daemon, PinMoved
from store.records import Checkpoint, Outcome
from store.witness import compare
from tests.fakes import write_tiny_llama
from tests.service.conftest import Desk, MakeDaemon
from tests.service.ledger_fakes import add_candidate, add_operator, promote

FILES = ("adapter_config.json", "adapter_model.safetensors", "manifest.json")


@pytest.fixture
def two(make_daemon: MakeDaemon) -> Callable[[], Desk]:
    """A state directory where one candidate was promoted over another; gives what opens it again."""
    daemon = make_daemon()
    ann = add_operator(daemon)
    for seed in (1, 2):
        promote(daemon, ann, add_candidate(daemon, seed=seed))
    daemon.close()
    return lambda: Desk(make_daemon())


def checkpoints(desk: Desk) -> tuple[Checkpoint, Checkpoint]:
    """The one before, and the champion."""
    champion, before = desk.daemon.stores.registry.checkpoints()
    return before, champion


@pytest.fixture
def champion(two: Callable[[], Desk], tmp_path: Path) -> Path:
    """The champion's directory, while no daemon runs."""
    with sqlite3.connect(tmp_path / "state" / "ledger.db") as db:
        (name,) = db.execute("SELECT checkpoint_id FROM promotions ORDER BY id DESC LIMIT 1").fetchone()
    db.close()
    return tmp_path / "state" / "checkpoints" / name


def assert_last_good_one_serves(desk: Desk, *, named: str) -> None:
    before, champion = checkpoints(desk)
    assert desk.serving == before.id
    assert desk.ask()["honed"]["checkpoint"] == before.id
    status = desk.operator.get("/operator/status").json()
    assert status["champion"]["id"] == before.id
    assert status["recorded_champion"] == champion.id
    (refused,) = status["refused"]
    assert refused["checkpoint"] == champion.id
    assert named in refused["reason"]
    noted = desk.daemon.stores.audit.newest("checkpoint.refused")
    assert noted.body["checkpoint"] == champion.id


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_an_undamaged_champion_serves_again_after_a_restart(two):
    desk = two()
    _, champion = checkpoints(desk)
    assert desk.serving == champion.id
    assert desk.operator.get("/operator/status").json()["refused"] == []


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_in_any_file_is_refused_by_the_files_name(two, champion, name):
    flip_byte(champion / name)
    assert_last_good_one_serves(two(), named="manifest" if name == "manifest.json" else name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(two, champion, name):
    (champion / name).unlink()
    assert_last_good_one_serves(two(), named=name)


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_refused_by_name(two, champion, name):
    (champion / name).write_bytes(b"")
    assert_last_good_one_serves(two(), named="manifest" if name == "manifest.json" else name)


def test_an_extra_file_is_refused_by_name(two, champion):
    (champion / "sitecustomize.py").write_text("print('hello')")
    assert_last_good_one_serves(two(), named="sitecustomize.py")


def test_a_manifest_swapped_with_anothers_is_refused(two, champion):
    other = next(path for path in champion.parent.iterdir() if path != champion)
    shutil.copyfile(other / "manifest.json", champion / "manifest.json")
    assert_last_good_one_serves(two(), named="manifest")


def test_a_whole_directory_swapped_with_anothers_is_refused(two, champion):
    other = next(path for path in champion.parent.iterdir() if path != champion)
    shutil.rmtree(champion)
    shutil.copytree(other, champion)
    assert_last_good_one_serves(two(), named="manifest")


@pytest.mark.parametrize("name", FILES)
def test_a_file_behind_a_symlink_is_refused_by_name_even_when_its_bytes_are_right(two, champion, tmp_path, name):
    elsewhere = shutil.move(champion / name, tmp_path / "elsewhere")
    (champion / name).symlink_to(elsewhere)
    assert_last_good_one_serves(two(), named=name)


def test_a_directory_behind_a_symlink_is_refused(two, champion, tmp_path):
    elsewhere = shutil.move(champion, tmp_path / "elsewhere")
    champion.symlink_to(elsewhere)
    assert_last_good_one_serves(two(), named="")


def test_a_pipe_in_a_files_place_is_refused_without_waiting(two, champion):
    (champion / "adapter_config.json").unlink()
    os.mkfifo(champion / "adapter_config.json")
    assert_last_good_one_serves(two(), named="adapter_config.json")


def test_a_champion_that_is_gone_is_passed_over(two, champion):
    shutil.rmtree(champion)
    assert_last_good_one_serves(two(), named=champion.name)


def test_with_every_checkpoint_damaged_the_base_serves(two, champion):
    for directory in champion.parent.iterdir():
        flip_byte(directory / "adapter_model.safetensors")
    desk = two()
    assert desk.serving == desk.daemon.base.id
    refused = [entry["checkpoint"] for entry in desk.operator.get("/operator/status").json()["refused"]]
    assert refused == [checkpoint.id for checkpoint in reversed(checkpoints(desk))]


def test_a_champion_made_whole_again_serves_again(two, champion):
    flip_byte(champion / "adapter_model.safetensors")
    desk = two()
    assert desk.serving != champion.name
    desk.daemon.close()
    flip_byte(champion / "adapter_model.safetensors")
    assert two().serving == champion.name


def forge(state: Path, statement: str, *values: object) -> None:
    """As somebody with the file in hand would: no daemon, no chain, no triggers."""
    db = sqlite3.connect(state / "ledger.db")
    triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.execute(statement, values)
    db.commit()
    db.close()


INSERT = (
    "INSERT INTO promotions (id, created_at, checkpoint_id, previous_id, kind, actor, reason, approval_ids) "
    "VALUES (9, 1.0, ?, ?, ?, 'operator:ann', 'looks fine', ?)"
)


@pytest.mark.parametrize("kind", ["promote", "rollback"])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_promotion_without_an_approval_forged_into_the_ledger_is_refused(make_daemon, kind, outcome):
    daemon: Daemon = make_daemon()
    candidate = add_candidate(daemon, outcome=outcome)
    daemon.close()
    forge(daemon.paths.state, INSERT, candidate.id, daemon.base.id, kind, '["made-up"]')
    desk = Desk(make_daemon())
    assert desk.serving == daemon.base.id
    (refused,) = desk.operator.get("/operator/status").json()["refused"]
    assert refused["checkpoint"] == candidate.id
    assert compare(desk.daemon.stores.ledger, desk.daemon.stores.audit) != ()


def test_another_candidates_approval_does_not_carry_a_forged_promotion(make_daemon):
    daemon: Daemon = make_daemon()
    ann = add_operator(daemon)
    approved, other = add_candidate(daemon, seed=1), add_candidate(daemon, seed=2)
    promote(daemon, ann, approved)
    (approval,) = daemon.stores.registry.approvals_of(approved.id)
    daemon.close()
    forge(daemon.paths.state, INSERT, other.id, approved.id, "promote", f'["{approval.id}"]')
    assert Desk(make_daemon()).serving == approved.id


def test_an_approval_row_pointed_at_another_candidate_does_not_hold(make_daemon):
    daemon: Daemon = make_daemon()
    ann = add_operator(daemon)
    approved, other = add_candidate(daemon, seed=1), add_candidate(daemon, seed=2)
    promote(daemon, ann, approved)
    daemon.close()
    forge(daemon.paths.state, "UPDATE approvals SET checkpoint_id = ?", other.id)
    forge(daemon.paths.state, "UPDATE promotions SET checkpoint_id = ?", other.id)
    desk = Desk(make_daemon())
    assert desk.serving == daemon.base.id
    assert "approval does not hold" in desk.operator.get("/operator/status").json()["refused"][0]["reason"]


def test_a_verdict_changed_behind_the_chain_is_found_but_a_fail_never_serves(make_daemon):
    daemon: Daemon = make_daemon()
    ann = add_operator(daemon)
    candidate = add_candidate(daemon)
    promote(daemon, ann, candidate)
    daemon.close()
    forge(daemon.paths.state, "UPDATE verdicts SET outcome = 'fail'")
    desk = Desk(make_daemon())
    assert desk.serving == daemon.base.id
    assert "its verdict is fail" in desk.operator.get("/operator/status").json()["refused"][0]["reason"]


def test_more_approvals_required_than_a_champion_has_puts_it_out_of_service(make_daemon):
    daemon: Daemon = make_daemon()
    promote(daemon, add_operator(daemon), add_candidate(daemon))
    daemon.close()
    assert Desk(make_daemon(approvals_required=2)).serving == daemon.base.id


def test_a_checkpoint_trained_on_another_base_does_not_serve(make_daemon):
    desk = Desk(make_daemon())
    ann = add_operator(desk.daemon)
    foreign = add_candidate(desk.daemon, base="f" * 64)
    with pytest.raises(RuntimeError, match="trained on base ffffffffffff"):
        promote(desk.daemon, ann, foreign)
    assert desk.serving == desk.daemon.base.id


def test_a_base_with_a_flipped_byte_does_not_start(make_daemon):
    daemon = make_daemon()
    daemon.close()
    flip_byte(daemon.base.path / "model.safetensors")
    with pytest.raises(Exception, match=r"model\.safetensors was changed"):
        make_daemon()


def test_another_base_under_the_same_source_does_not_start(make_daemon, make_settings, tmp_path):
    """The pin in models/ is edited together with the files: the ledger still knows what it began with."""
    source = tmp_path / "model"
    write_tiny_llama(source, seed=1)
    make_daemon(model=str(source)).close()
    shutil.rmtree(tmp_path / "state" / "models")
    write_tiny_llama(source, seed=2)
    with pytest.raises(PinMoved, match="which the ledger pinned"):
        make_daemon(model=str(source))
