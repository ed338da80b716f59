"""What may serve: exactly the sealed bytes, with an approval that holds. Everything else is passed over by name."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.serving import LoadError, ModelLoader
from service import ledger
from service.config import Settings
from service.daemon import Daemon
from service.paths import Paths
from service.stores import PinMoved
from service.trust import Choice, Trust
from store.records import Outcome
from store.witness import compare
from tests.fakes import write_tiny_llama
from tests.service.conftest import Desk
from tests.service.ledger_fakes import add_candidate, add_operator, promote

FILES = ("adapter_config.json", "adapter_model.safetensors", "manifest.json")


@dataclass(frozen=True, slots=True)
class Copy:
    """A state directory in which nobody runs: a champion promoted over another checkpoint, and candidates."""

    state: Path
    base: str
    before: str
    champion: str
    passed: str
    failed: str
    undecided: str

    @property
    def directory(self) -> Path:
        """The champion's."""
        return Paths(self.state).checkpoint(self.champion)

    def choice(self, required: int = 1) -> Choice:
        """What a daemon started here would serve."""
        with ledger.read_only(Paths(self.state)) as book:
            trust = Trust(book.registry, Paths(self.state), base_id=self.base, approvals_required=required)
            return trust.choose()

    def is_ledger_whole(self) -> bool:
        with ledger.read_only(Paths(self.state)) as book:
            return book.audit.verify().problems == compare(book.db, book.audit) == ()

    def forge(self, statement: str, *values: object) -> None:
        """As somebody with the file in hand would: no daemon, no chain, no triggers."""
        db = sqlite3.connect(self.state / "ledger.db")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement, values)
        db.commit()
        db.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., Settings]) -> Copy:
    daemon = Daemon(make_settings(tmp_path_factory.mktemp("trust") / "state"))
    ann = add_operator(daemon)
    before, champion = add_candidate(daemon, seed=1), add_candidate(daemon, seed=2)
    promote(daemon, ann, before)
    promote(daemon, ann, champion)
    rest = [add_candidate(daemon, seed=3 + n, outcome=outcome).id for n, outcome in enumerate(Outcome)]
    daemon.close()
    return Copy(daemon.paths.state, daemon.base.id, before.id, champion.id, *rest)


@pytest.fixture
def copy(template: Copy, tmp_path: Path) -> Copy:
    """The template's state directory, to spoil."""
    state = tmp_path / "state"
    shutil.copytree(template.state, state)
    return Copy(state, template.base, template.before, template.champion, *(getattr(template, o) for o in OUTCOMES))


OUTCOMES = ("passed", "failed", "undecided")


def assert_last_good_one_would_serve(copy: Copy, *, named: str) -> None:
    choice = copy.choice()
    assert choice.checkpoint_id == copy.before
    assert choice.adapter is not None
    (refused,) = choice.refused
    assert refused.checkpoint_id == copy.champion
    assert named in refused.reason


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_an_undamaged_champion_serves_again_after_a_restart(copy, make_daemon):
    desk = Desk(make_daemon())
    assert desk.serving == copy.champion == copy.choice().checkpoint_id
    assert desk.operator.get("/operator/status").json()["refused"] == []


def test_a_daemon_with_a_damaged_champion_answers_from_the_last_good_one_and_says_so(copy, make_daemon):
    flip_byte(copy.directory / "adapter_model.safetensors")
    desk = Desk(make_daemon())
    assert desk.serving == desk.ask()["honed"]["checkpoint"] == copy.before
    status = desk.operator.get("/operator/status").json()
    assert (status["champion"]["id"], status["recorded_champion"]) == (copy.before, copy.champion)
    (refused,) = status["refused"]
    assert refused["checkpoint"] == copy.champion
    assert "adapter_model.safetensors was changed" in refused["reason"]
    assert desk.daemon.stores.audit.newest("checkpoint.refused").body["checkpoint"] == copy.champion


def test_a_champion_whose_bytes_are_right_but_do_not_load_is_passed_over_for_the_last_good_one(
    copy, make_daemon, monkeypatch
):
    build = ModelLoader.build

    def build_all_but_the_champion(self, checkpoint_id, adapter, base=None):
        if checkpoint_id == copy.champion:
            raise LoadError("a second model needs 300 MiB and 2 MiB are free; stop something first")
        return build(self, checkpoint_id, adapter, base)

    monkeypatch.setattr(ModelLoader, "build", build_all_but_the_champion)
    desk = Desk(make_daemon())
    assert desk.serving == copy.before
    (refused,) = desk.operator.get("/operator/status").json()["refused"]
    assert (refused["checkpoint"], "2 MiB are free" in refused["reason"]) == (copy.champion, True)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_in_any_file_is_refused_by_the_files_name(copy, name):
    flip_byte(copy.directory / name)
    assert_last_good_one_would_serve(copy, named="manifest" if name == "manifest.json" else name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(copy, name):
    (copy.directory / name).unlink()
    assert_last_good_one_would_serve(copy, named=name)


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_refused_by_name(copy, name):
    (copy.directory / name).write_bytes(b"")
    assert_last_good_one_would_serve(copy, named="manifest" if name == "manifest.json" else name)


def test_an_extra_file_is_refused_by_name(copy):
    (copy.directory / "sitecustomize.py").write_text("print('hello')")
    assert_last_good_one_would_serve(copy, named="sitecustomize.py")


def test_a_manifest_swapped_with_anothers_is_refused(copy):
    other = next(path for path in copy.directory.parent.iterdir() if path != copy.directory)
    shutil.copyfile(other / "manifest.json", copy.directory / "manifest.json")
    assert_last_good_one_would_serve(copy, named="manifest")


def test_a_whole_directory_swapped_with_anothers_is_refused(copy):
    other = next(path for path in copy.directory.parent.iterdir() if path != copy.directory)
    shutil.rmtree(copy.directory)
    shutil.copytree(other, copy.directory)
    assert_last_good_one_would_serve(copy, named="manifest")


@pytest.mark.parametrize("name", FILES)
def test_a_file_behind_a_symlink_is_refused_by_name_even_when_its_bytes_are_right(copy, tmp_path, name):
    elsewhere = shutil.move(copy.directory / name, tmp_path / "elsewhere")
    (copy.directory / name).symlink_to(elsewhere)
    assert_last_good_one_would_serve(copy, named=name)


def test_a_directory_behind_a_symlink_is_refused(copy, tmp_path):
    elsewhere = shutil.move(copy.directory, tmp_path / "elsewhere")
    copy.directory.symlink_to(elsewhere)
    assert_last_good_one_would_serve(copy, named="")


def test_a_pipe_in_a_files_place_is_refused_without_waiting(copy):
    (copy.directory / "adapter_config.json").unlink()
    os.mkfifo(copy.directory / "adapter_config.json")
    assert_last_good_one_would_serve(copy, named="adapter_config.json")


def test_a_champion_that_is_gone_is_passed_over(copy):
    shutil.rmtree(copy.directory)
    assert_last_good_one_would_serve(copy, named=copy.champion)


def test_with_every_checkpoint_damaged_the_base_would_serve(copy):
    for directory in copy.directory.parent.iterdir():
        flip_byte(directory / "adapter_model.safetensors")
    choice = copy.choice()
    assert (choice.checkpoint_id, choice.adapter) == (copy.base, None)
    assert [refused.checkpoint_id for refused in choice.refused] == [copy.champion, copy.before]


def test_a_champion_made_whole_again_serves_again(copy):
    for expected in (copy.before, copy.champion):
        flip_byte(copy.directory / "adapter_model.safetensors")
        assert copy.choice().checkpoint_id == expected


INSERT = (
    "INSERT INTO promotions (id, created_at, checkpoint_id, previous_id, kind, actor, reason, approval_ids) "
    "VALUES (9, ?, ?, ?, ?, 'operator:ann', 'looks fine', ?)"
)


def approval_of(copy: Copy, checkpoint_id: str) -> str:
    with ledger.read_only(Paths(copy.state)) as book:
        (approval,) = book.registry.approvals_of(checkpoint_id)
    return f'["{approval.id}"]'


@pytest.mark.parametrize("kind", ["promote", "rollback"])
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("approval", ["none", "made up", "another's"])
def test_a_promotion_forged_into_the_ledger_does_not_serve_and_shows(copy, kind, outcome, approval):
    candidate = getattr(copy, outcome)
    approvals = {"none": "[]", "made up": '["made-up"]', "another's": approval_of(copy, copy.champion)}[approval]
    assert copy.is_ledger_whole()
    copy.forge(INSERT, 2e9, candidate, copy.champion, kind, approvals)
    choice = copy.choice()
    assert choice.checkpoint_id != candidate
    assert choice.refused[0].checkpoint_id == candidate
    assert not copy.is_ledger_whole()


def test_a_daemon_over_a_forged_promotion_serves_something_else(copy, make_daemon):
    copy.forge(INSERT, 2e9, copy.passed, copy.champion, "promote", approval_of(copy, copy.champion))
    desk = Desk(make_daemon())
    assert desk.serving == copy.champion
    (refused,) = desk.operator.get("/operator/status").json()["refused"]
    assert refused["checkpoint"] == copy.passed


def test_an_approval_row_pointed_at_another_candidate_does_not_hold(copy):
    copy.forge("UPDATE approvals SET checkpoint_id = ? WHERE checkpoint_id = ?", copy.passed, copy.champion)
    copy.forge("UPDATE promotions SET checkpoint_id = ? WHERE checkpoint_id = ?", copy.passed, copy.champion)
    choice = copy.choice()
    assert choice.checkpoint_id == copy.before
    assert "approval does not hold" in choice.refused[0].reason


def test_an_approval_edited_in_its_row_does_not_hold(copy):
    copy.forge("UPDATE approvals SET envelope = replace(envelope, 'a', 'b') WHERE checkpoint_id = ?", copy.champion)
    assert copy.choice().checkpoint_id == copy.before


def test_an_operators_key_swapped_for_another_does_not_hold(copy):
    copy.forge("UPDATE operators SET public_key = ?", "00" * 32)
    assert copy.choice().checkpoint_id == copy.base


def test_a_promotion_dated_outside_its_approvals_life_does_not_hold(copy):
    copy.forge("UPDATE promotions SET created_at = created_at + 7200 WHERE checkpoint_id = ?", copy.champion)
    choice = copy.choice()
    assert choice.checkpoint_id == copy.before
    assert "expired" in choice.refused[0].reason


def test_a_verdict_that_is_not_pass_never_serves(copy):
    copy.forge("UPDATE verdicts SET outcome = 'fail' WHERE checkpoint_id = ?", copy.champion)
    choice = copy.choice()
    assert choice.checkpoint_id == copy.before
    assert "its verdict is fail" in choice.refused[0].reason


REJECT = (
    "INSERT INTO approvals (id, created_at, checkpoint_id, decision, key_id, operator, reason, expires_at, envelope) "
    "SELECT 'no', 1.0, ?, 'reject', key_id, operator, 'it swears', 2.0, '{}' FROM approvals LIMIT 1"
)


def test_a_champion_that_was_rejected_never_serves(copy):
    copy.forge(REJECT, copy.champion)
    choice = copy.choice()
    assert choice.checkpoint_id == copy.before
    assert choice.refused[0].reason == "an operator rejected it"


def test_a_rejected_checkpoint_is_not_the_last_good_one(copy):
    copy.forge(REJECT, copy.before)
    assert copy.choice().checkpoint_id == copy.champion
    flip_byte(copy.directory / "adapter_model.safetensors")
    assert copy.choice().checkpoint_id == copy.base


def test_more_approvals_required_than_a_champion_has_puts_it_out_of_service(copy):
    assert copy.choice(required=2).checkpoint_id == copy.base


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


def test_a_source_keeps_the_base_it_was_first_pinned_to_whatever_served_in_between(make_daemon, tmp_path):
    sources = [write_tiny_llama(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    bases = []
    for source in (*sources, sources[0]):
        daemon = make_daemon(model=str(source))
        bases.append(daemon.base.id)
        assert ledger.pinned_base(daemon.stores.audit) == daemon.base.id  # what the ledger's own commands go by
        daemon.close()
    assert bases[0] == bases[2] != bases[1]
    make_daemon(model=str(sources[1])).close()
    shutil.rmtree(tmp_path / "state" / "models")
    write_tiny_llama(sources[0], seed=3)
    with pytest.raises(PinMoved, match=f"is not {bases[0][:12]}, which the ledger pinned first"):
        make_daemon(model=str(sources[0]))
