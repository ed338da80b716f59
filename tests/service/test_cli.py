"""The command line as people and scripts use it: real processes, against a real daemon process on the tiny models."""

import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from policies.refusal import EXIT_CODES, Refusal
from service import exits
from service.cli import COMMANDS
from service.daemon import Daemon
from store import artifacts
from store.records import Arm, FinishReason, Interaction, LabelTask
from tests import device
from tests.service.conftest import wait_until
from tests.service.ledger_fakes import add_candidate
from tests.service.shells import ROOT, Here, Shell

ASKED = ("boats", "mills")  # questions are open about these


class Serving:
    """`honed serve` in a process of its own."""

    def __init__(self, shell: Shell) -> None:
        command = [sys.executable, "-m", "service", "serve"]
        self.process = subprocess.Popen(
            command, env=shell.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        wait_until(
            lambda: any("State is in" in line for line in self.lines) or self.process.poll() is not None, seconds=60
        )
        assert self.process.poll() is None, "".join(self.lines)

    def _read(self) -> None:
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self._reader.join()
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def shell(tiny_llama: Path, tiny_embedder: Path, make_settings: Any) -> Iterator[Shell]:
    """A state directory with five candidates in its ledger (a socket's path must be short)."""
    with tempfile.TemporaryDirectory(prefix="honed-") as name:
        settings = {
            "MODEL": tiny_llama,
            "EMBEDDER": tiny_embedder,
            "PORT": 0,
            "DEVICE": device.NAME,
            "DTYPE": "float32",
        }
        settings |= {"THREADS": 1, "TRAIN_THREADS": 1, "ASK_INTERVAL_SECONDS": 0.2, "SCORE_INTERVAL_SECONDS": 0.2}
        yield Shell(Path(name) / "s", {f"HONED_{key}": str(value) for key, value in settings.items()})


@pytest.fixture(scope="module")
def candidates(shell: Shell, make_settings: Any) -> list[str]:
    """Made before the daemon starts: what training would have left."""
    daemon = Daemon(make_settings(shell.state))
    found = [add_candidate(daemon, seed=seed).id for seed in (1, 2, 3)]
    add_candidate(daemon, seed=4, outcome=None)  # as while its run evaluates
    for name in ASKED:
        daemon.stores.interactions.append(turn(name))
        daemon.stores.labels.add(LabelTask(f"{name}-question", name, 1.0, 0.7, "it was in doubt", arm=Arm.RANDOM))
    daemon.close()
    return found


@pytest.fixture(scope="module")
def daemon(shell: Shell, candidates: list[str]) -> Iterator[Serving]:
    serving = Serving(shell)
    yield serving
    if serving.process.poll() is None:
        serving.stop()


def turn(name: str) -> Interaction:
    messages = ({"role": "user", "content": f"What about {name}?"},)
    return Interaction(name, name, 1.0, "ann", "base", messages, "Fine.", FinishReason.STOP, (), 9, 0.1, 0.5)


def chat(shell: Shell, text: str = "Hi") -> dict[str, Any]:
    return shell.json("chat", text, "--temperature", "0", "--max-tokens", "6")


def question(shell: Shell, interaction_id: str) -> dict[str, Any] | None:
    """What the queue asks about a turn, if it does. The tiny embedder takes all texts for nearly the same, so that past
    those made before the daemon started there are none.
    """
    return next((q for q in shell.json("queue") if q["interaction_id"] == interaction_id), None)


def test_serve_says_where_it_is_and_what_comes_next(shell, daemon):
    said = "".join(daemon.lines)
    assert "honed is listening on http://127.0.0.1:" in said
    assert "honed chat" in said
    assert f"State is in {shell.state}" in said


def test_the_socket_is_its_owners_only(shell, daemon):
    assert (shell.state / "honed.sock").stat().st_mode & 0o777 == 0o600
    assert shell.state.stat().st_mode & 0o777 == 0o700


def test_status_tells_the_picture_to_people_and_to_scripts(shell, daemon, candidates):
    picture = shell.json("status")
    assert picture["champion"]["is_base"] is True
    assert {c["id"] for c in picture["candidates"]} == set(candidates)
    text = shell.ok("status")
    assert picture["champion"]["id"][:12] in text
    assert "ready" in text


def test_chat_answers_once_with_text_and_its_id_can_be_corrected(shell, daemon):
    answer = chat(shell, "What is the code?")
    assert answer["reply"]
    assert answer["interaction_id"][:12] in shell.ok("chat", "again", "--max-tokens", "3") or answer["checkpoint"]
    given = shell.json("feedback", answer["interaction_id"], "--down", "--correction", "The code is 7714.")
    assert (given["rating"], given["correction"]) == ("down", "The code is 7714.")
    for said_under in (answer["interaction_id"], given["id"]):
        assert shell.json("data", "explain", said_under[:12])["feedback"] == given["id"]
    assert shell.ok("feedback", answer["interaction_id"], "--up") == "noted, thank you\n"


def test_a_conversation_can_be_rated_corrected_and_left(shell, daemon):
    said = shell.ok("chat", "--max-tokens", "4", stdin="Hello\n/up\n/correct Good day.\n/new\nAgain\n/down\n/quit\n")
    assert said.count("noted, thank you") == 3
    shell.ok("chat", stdin="")  # the end of input is a goodbye too


def test_feedback_on_nothing_is_not_found(shell, daemon):
    assert "no interaction 'nothing'" in shell.fails(exits.NOT_FOUND, "feedback", "nothing", "--up")


def test_questions_are_shown_and_settled(shell, daemon):
    found = question(shell, ASKED[0])
    assert (found["arm"], found["reason"]) == ("random", "it was in doubt")
    shown = " ".join(shell.ok("queue").split())
    assert "random" in shown
    assert "doubt" in shown
    shown_id = found["id"][:12]
    assert shell.json("label", shown_id, "--answer", "Like this.") == {"id": found["id"], "state": "answered"}
    assert "answered already" in shell.fails(exits.NOT_POSSIBLE, "label", shown_id, "--skip")
    assert question(shell, ASKED[0]) is None
    assert "random 1 of 1" in shell.ok("status")


def test_questions_can_be_gone_through_one_by_one(shell, daemon):
    said = shell.ok("label", stdin="r\n" * 50 + "q\n")
    assert "settled" in said
    assert "why this one (random): it was in doubt" in said
    assert shell.json("queue") == []
    assert "Nothing to ask" in shell.ok("queue")


def test_what_is_asked_is_shown_in_groups(shell, daemon):
    found = wait_until(lambda: shell.json("data", "clusters", "--count", "3"))
    assert all(cluster["size"] for cluster in found)
    assert "nats a token" in shell.ok("data", "clusters")


def test_an_unknown_question_is_not_found(shell, daemon):
    shell.fails(exits.NOT_FOUND, "label", "nothing", "--right")


def test_runs_are_listed_and_looked_at(shell, daemon):
    (first, *_) = runs = shell.json("runs")
    assert {run["state"] for run in runs} == {"judged"}
    assert shell.json("runs", first["id"])["id"] == first["id"]
    assert first["id"][:12] in shell.ok("runs")
    shell.fails(exits.NOT_FOUND, "runs", "nothing")


def test_a_review_shows_figures_and_what_a_decision_is_bound_to(shell, daemon, candidates):
    review = shell.json("review", candidates[0][:10])
    assert review["checkpoint"] == review["binds"]["candidate"] == candidates[0]
    text = shell.ok("review", candidates[0][:10])
    assert "3/3" in text
    assert "honed approve" in text
    shell.fails(exits.NOT_FOUND, "review", "0000000")


def test_a_checkpoint_that_was_not_measured_is_told_in_one_line(shell, daemon, candidates):
    (unmeasured,) = {run["checkpoint"] for run in shell.json("runs")} - set(candidates)
    for command in (("review",), ("approve", "--reason", "unseen", "--yes"), ("reject", "--reason", "unseen", "--yes")):
        said = shell.fails(exits.NOT_POSSIBLE, command[0], unmeasured[:12], *command[1:])
        assert f"{unmeasured[:12]} was not measured and judged yet" in said
        assert "Try: honed runs " in said
    assert shell.json("review", unmeasured[:12])["verdict"] is None


def test_the_way_from_an_operator_over_an_approval_to_a_rollback(shell, daemon, candidates, tmp_path):
    first, second, third = candidates
    shell.fails(exits.USAGE, "approve", first[:12], "--reason", "before there is a key", "--yes")
    assert shell.json("operator", "add", "ann")["name"] == "ann"
    key = shell.state / "keys" / "ann.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    shell.fails(exits.USAGE, "operator", "add", "ann")
    shell.ok("operator", "add", "bob", "--introduced-by", "ann")
    assert shell.json("operator", "list") == ["ann", "bob"]
    assert "bob" in shell.ok("operator", "list")

    before = chat(shell)["reply"]
    by_ann = ("--operator", "ann", "--yes")
    shell.fails(exits.FAILED, "approve", first[:12], "--reason", "no to the question", "--operator", "ann", stdin="n\n")
    shell.fails(exits.USAGE, "approve", first[:12], "--reason", "two keys, none named", "--yes")
    approved = shell.json("approve", first[:12], "--reason", "all five facts right", *by_ann)
    assert (approved["candidate"], approved["promoted"]) == (first, True)
    assert chat(shell)["checkpoint"] == first
    assert shell.json("status")["champion"]["id"] == first

    shell.ok("reject", third[:12], "--reason", "it forgot the capitals", *by_ann)
    said = shell.fails(EXIT_CODES[Refusal.REJECTED], "approve", third[:12], "--reason", "still", *by_ann)
    assert "rejected" in said
    assert "reason" in shell.fails(exits.USAGE, "approve", second[:12], "--reason", "x", *by_ann)

    assert "no checkpoint begins with '0000000'" in shell.fails(
        exits.NOT_FOUND, "export", str(tmp_path / "wrong"), "--checkpoint", "0000000"
    )
    assert "too short" in shell.fails(exits.NOT_FOUND, "export", str(tmp_path / "wrong"), "--checkpoint", first[:2])
    exported = tmp_path / "champion"
    assert shell.json("export", str(exported))["checkpoint"] == first
    assert artifacts.verify(exported / "adapter", first)["kind"] == "checkpoint"
    story = json.loads((exported / "story.json").read_text())
    assert story["verdict"]["outcome"] == "pass"
    assert story["approvals"][0]["operator"] == "ann"
    shell.fails(exits.USAGE, "export", str(exported))

    assert shell.json("rollback", "--reason", "answers got worse")["previous"] == first
    assert chat(shell)["reply"] == before
    shell.fails(exits.NOT_POSSIBLE, "rollback", "--reason", "once more")
    shell.fails(exits.NOT_POSSIBLE, "export", str(tmp_path / "base"))

    assert shell.json("approve", second[:12], "--reason", "the second one", *by_ann)["promoted"]


def test_the_audit_record_holds_and_a_head_kept_elsewhere_is_found(shell, daemon):
    report = shell.json("audit", "verify")
    assert (report["problems"], report["num_entries"] > 5) == ([], True)
    assert "entries, head" in shell.ok("audit", "verify", "--expect-head", report["head"])
    cut = shell.run("audit", "verify", "--expect-head", "ab" * 32)
    assert (cut.returncode, "BROKEN" in cut.stdout) == (exits.AUDIT_BROKEN, True)
    assert len(shell.json("audit", "log", "--limit", "3")) == 3
    assert "base.pinned" in shell.ok("audit", "log", "--limit", "500")


def test_fetching_what_is_here_needs_nothing(shell, daemon):
    ready = shell.json("fetch")
    assert ready.keys() == {"base", "embedder"}
    assert "tiny-llama" in shell.ok("fetch")


def test_a_run_is_started_once_and_stops_with_its_daemon(shell, daemon):
    """The correction given above is what it learns from."""
    assert "wibble" in shell.fails(exits.NOT_POSSIBLE, "train", "--set", "wibble=1")
    run = shell.json("train", "--set", "sft.max_steps=1", "--set", "rank=2")
    assert run["state"] == "queued"
    shell.fails(exits.NOT_POSSIBLE, "train")
    wait_until(lambda: shell.json("runs", run["id"])["state"] == "training")
    assert shell.json("status")["learning"]["run"] == run["id"]
    assert daemon.stop() == 0
    with sqlite3.connect(shell.state / "honed.db") as db:
        ((state, pid),) = db.execute("SELECT state, pid FROM runs WHERE id = ?", [run["id"]])
    db.close()
    assert (state, psutil.pid_exists(pid)) == ("training", False)


# ── without a daemon (the order of the tests in this file is theirs to keep: here it stops) ──────────────────────────


def test_a_stopped_daemon_leaves_cleanly_and_the_way_back_stays_open(shell, daemon, candidates):
    assert not (shell.state / "honed.sock").exists()
    said = shell.fails(exits.NO_DAEMON, "status")
    assert "Try: honed serve" in said
    assert shell.json("audit", "verify")["problems"] == []
    assert shell.json("rollback", "--reason", "while nobody serves")["previous"] == candidates[1]
    shell.fails(exits.NOT_POSSIBLE, "rollback", "--reason", "once more")
    assert shell.json("audit", "verify")["problems"] == []


COMMANDS_OF_A_CLIENT = [
    ("status",),
    ("chat", "Hi"),
    ("feedback", "x", "--up"),
    ("queue",),
    ("label",),
    ("train",),
    ("runs",),
    ("review",),
    ("approve", "x", "--reason", "because", "--yes"),
    ("reject", "x", "--reason", "because", "--yes"),
    ("operator", "add", "x"),
    ("operator", "list"),
]


@pytest.fixture
def nowhere(tmp_path: Path) -> Here:
    """A state directory that no daemon has ever seen."""
    return Here(tmp_path / "nowhere")


@pytest.mark.parametrize("command", COMMANDS_OF_A_CLIENT, ids=lambda command: command[0])
def test_without_a_daemon_a_command_says_so_and_how_to_start_one(nowhere, command):
    said = nowhere.fails(exits.NO_DAEMON, *command)
    assert "no daemon answers" in said
    assert "Try: honed serve" in said
    assert not nowhere.state.exists()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("rollback", "--reason", "because"), exits.NOT_POSSIBLE),
        (("audit", "verify"), exits.NOT_FOUND),
        (("audit", "log"), exits.NOT_FOUND),
        (("export", "somewhere"), exits.NOT_FOUND),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_needs_no_daemon_needs_a_ledger(nowhere, command, code):
    assert "holds no ledger" in nowhere.fails(code, *command)
    assert not nowhere.state.exists()


@pytest.mark.parametrize("command", ["serve", "fetch"])
@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"HONED_HOST": "0.0.0.0", "HONED_API_KEYS": "off"}, "loopback"),  # noqa: S104
        ({"HONED_PORT": "many"}, "port"),
    ],
)
def test_a_setting_that_cannot_be_is_told_in_one_line(nowhere, command, setting, named):
    shell = Here(nowhere.state, setting)
    assert named in shell.fails(exits.USAGE, command)


@pytest.mark.parametrize("text", ["prot = 1\n", "port = \n", "\x00"])
@pytest.mark.parametrize("command", ["serve", "fetch"])
def test_a_settings_file_that_cannot_be_is_told_in_one_line(nowhere, command, text):
    nowhere.state.mkdir()
    (nowhere.state / "honed.toml").write_text(text)
    nowhere.fails(exits.USAGE, command)


def test_a_model_that_cannot_be_had_is_told_in_one_line(nowhere):
    shell = Here(nowhere.state, {"HONED_MODEL": "/no/such/model"})
    assert "/no/such/model" in shell.fails(exits.UNAVAILABLE, "fetch")


def test_a_state_directory_with_too_long_a_path_is_told_in_one_line(tmp_path):
    shell = Here(tmp_path / ("x" * 120))
    shell.fails(exits.NO_DAEMON, "status")


def test_a_directory_in_the_sockets_place_is_told_in_one_line(nowhere):
    (nowhere.state / "honed.sock").mkdir(parents=True)
    nowhere.fails(exits.NO_DAEMON, "status")


# ── help ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

SUBCOMMANDS = {
    "operator": ("add", "list"),
    "audit": ("verify", "log"),
    "key": ("add", "list", "revoke"),
    "data": ("list", "clusters", "explain"),
}
EVERY_COMMAND = [(name, *sub) for name in COMMANDS for sub in ([(s,) for s in SUBCOMMANDS.get(name, ())] or [()])]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_the_help_of_each_command_has_an_example(command):
    import importlib

    import click
    from click.testing import CliRunner

    found = importlib.import_module(f"service.cli.{COMMANDS[command[0]][0]}").command
    for name in command[1:]:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    result = CliRunner().invoke(found, ["--help"], prog_name="honed " + " ".join(command))
    assert result.exit_code == 0
    assert (
        f"Example: honed {' '.join(command)}" in " ".join(result.output.split()) or "Example: HONED_" in result.output
    )


def test_the_overview_names_every_command_and_loads_none():
    script = (
        "import sys; from service.cli import main\ntry: main()\nfinally: print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert not {"torch", "fastapi", "pydantic", "service.cli.chat"} & set(json.loads(done.stderr.replace("'", '"')))


@pytest.mark.parametrize("arguments", [("wibble",), ("chat", "--wibble"), ("approve",), ("train", "--set", "rank")])
def test_a_command_line_that_is_not_understood_ends_with_2(nowhere, arguments):
    done = nowhere.run(*arguments)
    assert done.returncode == exits.USAGE
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
