"""Answers that are none: each becomes one error, whose kind says whether anybody was there."""

import re
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from service import exits
from service.client import BrokenOff, Client, NoDaemon, Refused
from tests.service.fake_daemon import cuts, hangs_up, says, shell_of, streams, token

HONED = {**token("."), "honed": {"interaction_id": "i" * 32, "checkpoint": "c" * 64}}
MODELS = {"/v1/models": says({"data": [{"id": "tiny"}]})}


def client_of(shell: Any, **options: float) -> Client:
    return Client(shell.state / "honed.sock", **options)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(hangs_up, "gave no whole answer"), (cuts, "IncompleteRead"), (says("<html>"), "gave no whole answer")],
    ids=["hangs up", "cuts", "no JSON"],
)
def test_an_answer_that_is_not_whole_is_an_error_that_names_the_socket(answer, why):
    with shell_of({"/x": answer}) as (shell, _):
        with pytest.raises(BrokenOff, match=why) as caught:
            client_of(shell).get("/x")
        assert str(shell.state / "honed.sock") in str(caught.value)


def test_a_daemon_that_takes_too_long_is_told_from_one_that_is_not_there():
    is_told = threading.Event()

    def dawdle(_: BaseHTTPRequestHandler) -> None:
        is_told.wait(10)

    with shell_of({"/x": dawdle}) as (shell, _):
        with pytest.raises(BrokenOff, match=re.escape("did not answer within 0.1 seconds")):
            client_of(shell, timeout_seconds=0.1).get("/x")
        is_told.set()


def test_nobody_on_the_socket_is_no_daemon():
    with pytest.raises(NoDaemon, match="no daemon answers") as caught:
        Client(Path("/nowhere/honed.sock")).get("/x")
    assert not isinstance(caught.value, BrokenOff)


def test_an_answer_that_sends_elsewhere_is_refused():
    with shell_of({"/x": says("", 307)}) as (shell, _), pytest.raises(Refused, match="answered 307"):
        client_of(shell).get("/x")


def test_a_stream_ends_with_its_last_word_and_without_it_is_broken():
    answers = {"/whole": streams(token("a")), "/broken": streams(token("a"), is_whole=False), "/cut": cuts}
    with shell_of(answers) as (shell, _):
        client = client_of(shell)
        assert list(client.stream("/whole", {})) == [token("a")]
        seen = []
        with pytest.raises(BrokenOff, match="broke off before its end"):
            seen.extend(client.stream("/broken", {}))
        with pytest.raises(BrokenOff):
            list(client.stream("/cut", {}))


def test_commands_name_a_broken_answer_and_where_to_look():
    with shell_of({"/operator/status": hangs_up}) as (shell, _):
        assert "Try: honed status" in shell.fails(exits.NO_DAEMON, "status")


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_chat_whose_answer_breaks_off_fails(options):
    with shell_of({**MODELS, "/v1/chat/completions": streams(token("Par"), is_whole=False)}) as (shell, _):
        done = shell.run("chat", "Hi", *options)
        assert done.returncode == exits.NO_DAEMON
        assert done.stdout == ("" if options else "Par\n")
        assert done.stderr.startswith("Error: the answer of the daemon")


def test_a_conversation_whose_answer_breaks_off_fails_and_one_that_is_refused_goes_on():
    broken = streams(token("Par"), is_whole=False)
    refused = streams(token("Par"), {"error": {"message": "the engine is being rebuilt"}})
    with shell_of({**MODELS, "/v1/chat/completions": broken}) as (shell, daemon):
        done = shell.run("chat", stdin="Hi\n/quit\n")
        assert (done.returncode, done.stderr.count("broke off")) == (exits.NO_DAEMON, 1)
        daemon.answers["/v1/chat/completions"] = refused
        done = shell.run("chat", stdin="Hi\n/quit\n")
        assert (done.returncode, done.stderr) == (exits.OK, "the engine is being rebuilt\n")
        daemon.answers["/v1/chat/completions"] = streams(token("Paris"), HONED)
        assert "Paris." in shell.ok("chat", stdin="Hi\n/quit\n")


def test_an_id_cannot_leave_its_place_in_a_path():
    with shell_of({}) as (shell, daemon):
        for wanted in ("a b?limit=1#x", "..%2f", "é\x1b"):
            shell.fails(exits.NOT_FOUND, "runs", wanted)
            shell.fails(exits.NOT_FOUND, "label", wanted, "--skip")
            shell.fails(exits.NOT_FOUND, "data", "explain", wanted)
            shell.fails(exits.NOT_FOUND, "key", "revoke", wanted)
            shell.fails(exits.NOT_FOUND, "review", wanted)
        assert all(re.fullmatch(r"/operator/[\w/%.?=]+", path) for path in daemon.asked)
        assert daemon.asked[0] == "/operator/runs/a%20b%3Flimit%3D1%23x"
        num_asked = len(daemon.asked)
        for wanted in ("a/b", "../keys"):
            assert repr(wanted) in shell.fails(exits.NOT_FOUND, "data", "explain", wanted)
        assert "''" in shell.fails(exits.NOT_FOUND, "data", "explain", "")
        assert len(daemon.asked) == num_asked
