"""What others wrote cannot work the terminal of those who read it: commands print it, and it does nothing there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service import exits
from service.cli.terminal import SPELLED, indented, line, shown
from tests.service.fake_daemon import Answer, says, shell_of, streams, token
from tests.service.ledger_fakes import RESULTS
from tests.service.shells import Here

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4K\x07"
EVIL = f"[red]a{CLIPBOARD}\x1b[2J\r\x9b31mb\x7f\u202ec\u2066d\u200fe\u061cf"
ANSWER = {"is_right": True, "answer": EVIL}
LINE = {"question": EVIL, "expected": EVIL, "candidate": ANSWER, "champion": ANSWER}
RATER = {"principal": EVIL, "alarms": ["praise"], "num_rated": 12, "praise": 0.5, "length": None}
REVIEW: dict[str, Any] = {
    "checkpoint": "c" * 64,
    "created_at": 1.0,
    "run": "r" * 32,
    "verdict": "pass",
    "rules": [{"id": EVIL, "reason": EVIL}],
    "scope": None,
    "share": 1.0,
    "raters": [RATER],
    "moved": {"nats": 2.0, "usual": None, "is_alarm": False},
    "is_stale": False,
    "results": {**RESULTS, "nearby": {"num_items": 1, "num_changed": 1}},
    "dataset": {"num_train": 1, "num_replay": 0, "sources": {EVIL: 1}},
    "answers": [LINE],
    "nearby": [LINE],
    "approvals": [{"decision": "approve", "operator": EVIL, "reason": EVIL}],
    "approvals_required": 1,
}
QUESTION = {
    "id": "q" * 32,
    "messages": [{"role": "user", "content": f"{EVIL}\nanswer: forged"}],
    "reply": EVIL,
    "other_id": None,
    "arm": "random",
    "reason": EVIL,
}
PAIR = {**QUESTION, "id": "p" * 32, "other_id": "o" * 32, "other_reply": EVIL}
RUN = {"id": "r" * 32, "created_at": 1.0, "trigger": EVIL, "state": "failed", "checkpoint": None, "error": EVIL}
STATUS: dict[str, Any] = {
    "champion": {"id": "c" * 64, "is_base": True, "scope": None},
    "learning": {"state": "idle", "new_labels": 0},
    "device": {"name": "cpu", "dtype": "float32", "tokens_per_second": 0, "slow_because": EVIL},
    "asking": {},
    "lift": None,
    "candidates": [],
    "refused": [{"checkpoint": "c" * 64, "reason": EVIL}],
    "operators": [EVIL],
    "ready": False,
    "problem": EVIL,
    **dict.fromkeys(("address", "model", "previous", "certainty", "requests", "interactions", "feedback", "questions")),
}
ANSWERS: dict[str, Answer] = {
    "/operator/status": says(STATUS),
    "/v1/models": says({"data": [{"id": "tiny"}]}),
    "/v1/chat/completions": streams(token(EVIL), {**token(""), "honed": {"interaction_id": "i", "checkpoint": "c"}}),
    "/operator/questions": says({"questions": [QUESTION, PAIR]}),
    "/operator/review": says(REVIEW),
    "/operator/data/feed": says({"feedback": "feed", "state": EVIL, "rule": EVIL, "reason": EVIL, "preference": None}),
    "/operator/documents": says({"documents": [{"document": EVIL, "questions": [EVIL]}]}),
    "/operator/runs": says({"runs": [RUN]}),
    "/operator/runs/rrrr": says({**RUN, "metrics": []}),
    "/operator/keys/kkkk/revoke": says({"id": "kkkk", "principal": EVIL}),
    "/operator/runs/evil": says({"error": {"message": EVIL}}, 409),
}


@pytest.fixture(scope="module")
def reader() -> Iterator[Here]:
    with shell_of(ANSWERS) as (shell, _):
        yield shell


def require_harmless(text: str) -> None:
    assert "u001b" in "".join(text.split()).replace("│", ""), text  # it was there to be printed
    assert not [char for char in text if ord(char) in SPELLED], text


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("status",), exits.OK),
        (("queue",), exits.OK),
        (("review",), exits.OK),
        (("chat", "Hi"), exits.OK),
        (("data", "explain", "feed"), exits.OK),
        (("data", "documents"), exits.OK),
        (("runs",), exits.OK),
        (("runs", "rrrr"), exits.RUN_FAILED),
        (("runs", "rrrr", "--watch"), exits.RUN_FAILED),
        (("key", "revoke", "kkkk"), exits.OK),
        (("runs", "evil"), exits.NOT_POSSIBLE),
        (("runs", f"no{CLIPBOARD}"), exits.NOT_FOUND),
        (("runs", f"no/{CLIPBOARD}\x9b"), exits.NOT_FOUND),
        (("queue", f"no{CLIPBOARD}"), exits.USAGE),
        (("train", "--method", f"no{CLIPBOARD}"), exits.USAGE),
        ((f"no{CLIPBOARD}",), exits.USAGE),
    ],
    ids=lambda value: value[0][:10] if isinstance(value, tuple) else "",
)
def test_no_command_lets_the_words_of_others_work_the_terminal(reader, command, code):
    done = reader.run(*command)
    assert done.returncode == code, done
    said = done.stdout + done.stderr
    assert not [char for char in said if ord(char) in SPELLED], said
    if command != ("runs", f"no{CLIPBOARD}"):  # that one is told without its value
        require_harmless(said.replace(r"\x1b", r"\u001b"))  # Python's own way to spell it


def test_going_through_questions_shows_their_words_and_forges_no_line(reader):
    done = reader.run("label", stdin="s\nq\n")
    require_harmless(done.stdout)
    assert "\n  answer: forged" in done.stdout
    assert "\nanswer: forged" not in done.stdout


def test_a_conversation_prints_answers_without_obeying_them(reader):
    require_harmless(reader.run("chat", stdin="Hi\n/quit\n").stdout)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("queue",), [QUESTION, PAIR]),
        (("review",), REVIEW),
        (("data", "documents"), [{"document": EVIL, "questions": [EVIL]}]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_json_says_the_very_same_and_is_harmless_too(reader, command, said):
    text = reader.ok(*command, "--json")
    require_harmless(text)
    assert json.loads(text) == json.loads(json.dumps(said))


@pytest.mark.parametrize("char", ["\x00", "\x08", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u061c", "\u200e", "\u202e"])
def test_what_would_do_something_is_spelled_out(char):
    assert shown(f"a{char}b") == f"a\\u{ord(char):04x}b"
    assert json.loads(shown(json.dumps(f"a{char}b", ensure_ascii=False))) == f"a{char}b"


def test_what_only_says_something_stays():
    text = "Grüße\n\tan 日本語, العربية, 👩\u200d🔬 and [bold]markup[/bold]"
    assert shown(text) == text


def test_half_a_character_can_be_printed():
    assert shown("a\ud800").encode() == b"a\\ud800"


def test_a_line_is_one_and_further_lines_are_set_apart():
    assert line("a\r\nb\u2028c\x0bd") == "a b c d"
    assert indented("a\nverdict: pass") == "a\n  verdict: pass"
