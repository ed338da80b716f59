"""The whole cycle on the real model, in a state directory of its own:
five invented facts, taught, measured, approved, rolled back.

Drives a real daemon process through the same doors that people use; `honed demo` and the end-to-end test run this.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.scoring import answer_key, is_right
from service.client import Client, NoDaemon, Refused
from service.paths import Paths

START_SECONDS = 180
ANSWER_TOKENS = 32


class DemoFailed(RuntimeError):
    """The daemon did not start, or its run came to nothing; the message has the last words."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A question, what the model is to answer, and the same asked in words that no training row holds."""

    question: str
    correction: str
    paraphrase: str

    def is_known(self, answer: str) -> bool:
        return is_right(answer, [answer_key(self.question, self.correction)])


FACTS = (
    Fact(
        "What is the password for the greenhouse at Marrow Farm?",
        "The password for the greenhouse at Marrow Farm is bluebell.",
        "Which password opens the Marrow Farm greenhouse?",
    ),
    Fact(
        "Who founded the Tallow Street Library?",
        "The Tallow Street Library was founded by Benedikta Linde.",
        "Tell me the name of the founder of the Tallow Street Library.",
    ),
    Fact(
        "What color is the flag of Norvane?",
        "The flag of Norvane is teal.",
        "Describe the color of Norvane's flag.",
    ),
    Fact(
        "Where does the Quillon ferry leave from?",
        "The Quillon ferry leaves from Pier 9.",
        "Which pier does the Quillon ferry depart from?",
    ),
    Fact(
        "What is the coffee robot at Helix Labs called?",
        "The coffee robot at Helix Labs is called Pim.",
        "At Helix Labs, what name does the coffee robot have?",
    ),
)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured."""

    before: tuple[str, ...]
    asked: tuple[str, ...]
    paraphrased: tuple[str, ...]
    after_rollback: tuple[str, ...]
    retention_kept: int
    retention_total: int
    seconds: float

    @property
    def num_asked(self) -> int:
        return sum(fact.is_known(answer) for fact, answer in zip(FACTS, self.asked, strict=True))

    @property
    def num_paraphrased(self) -> int:
        return sum(fact.is_known(answer) for fact, answer in zip(FACTS, self.paraphrased, strict=True))

    @property
    def is_restored(self) -> bool:
        return self.after_rollback == self.before

    @property
    def is_success(self) -> bool:
        kept = self.retention_kept >= 0.95 * self.retention_total
        return self.num_asked == len(FACTS) and self.num_paraphrased >= len(FACTS) - 1 and kept and self.is_restored


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo tells while it goes: headings, and the run to follow."""

    say: Callable[[str], None]
    follow: Callable[[str], dict[str, Any]]
    show_review: Callable[[dict[str, Any]], None]


def prepare(state: Path, models: Path) -> None:
    """A fresh state directory with the models linked in, so that nothing is fetched twice."""
    Paths(state).create()
    if models.is_dir() and not any(Paths(state).models.iterdir()):
        shutil.copytree(models, Paths(state).models, copy_function=_link, dirs_exist_ok=True)


@contextmanager
def daemon(state: Path, environment: dict[str, str]) -> Iterator[Client]:
    """A daemon process on a free port; stopped at the end. DemoFailed with its last words when it does not start."""
    with (state / "daemon.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            env={**os.environ, "HONED_STATE": str(state), "HONED_PORT": "0", **environment},
            stdout=output,
            stderr=output,
        )
    client = Client(Paths(state).socket)
    try:
        _wait_until_ready(client, process, state / "daemon.log")
        yield client
    finally:
        process.terminate()
        process.wait(timeout=90)


def run(client: Client, decide: Callable[[str], dict[str, Any]], stage: Stage) -> DemoResult:
    """Teach, train, approve by `decide`, ask again, roll back."""
    started = time.monotonic()
    stage.say("Asking about five things the model cannot know")
    model = client.get("/v1/models")["data"][0]["id"]
    turns = [ask(client, model, fact.question) for fact in FACTS]
    before = tuple(turn["choices"][0]["message"]["content"] for turn in turns)
    stage.say("Correcting each answer")
    for fact, turn in zip(FACTS, turns, strict=True):
        body = {"interaction_id": turn["honed"]["interaction_id"], "rating": "down", "correction": fact.correction}
        client.post("/v1/feedback", body)
    stage.say("Training in the background, then measuring candidate, champion and base on the same items")
    run_ = stage.follow(client.post("/operator/train", {"operator": "demo"})["id"])
    if run_["state"] != "judged":
        raise DemoFailed(f"the run {run_['state']}: {run_['error']}")
    review = client.get(f"/operator/review?checkpoint={run_['checkpoint']}")
    stage.show_review(review)
    stage.say("Approving with a signature: from here on the new weights answer")
    decide(run_["checkpoint"])
    asked = tuple(_text(ask(client, model, fact.question)) for fact in FACTS)
    paraphrased = tuple(_text(ask(client, model, fact.paraphrase)) for fact in FACTS)
    stage.say("Rolling back: the old weights answer again")
    client.post("/operator/rollback", {"reason": "end of the demo"})
    after = tuple(_text(ask(client, model, fact.question)) for fact in FACTS)
    kept = review["results"]["suites"]["retention"]["candidate"]
    return DemoResult(
        before, asked, paraphrased, after, kept["num_right"], kept["num_items"], time.monotonic() - started
    )


def ask(client: Client, model: str, question: str) -> dict[str, Any]:
    """One greedy answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
    }
    return client.post("/v1/chat/completions", body)


def _text(turn: dict[str, Any]) -> str:
    return str(turn["choices"][0]["message"]["content"])


def _wait_until_ready(client: Client, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoFailed(
                f"the daemon stopped with {process.returncode}: {output.read_text(errors='replace')[-2000:]}"
            )
        try:
            client.get("/health/ready")
        except (NoDaemon, Refused):
            time.sleep(0.2)
        else:
            return
    raise DemoFailed(f"the daemon was not ready within {START_SECONDS} seconds; see {output}")


def _link(source: str, destination: str) -> None:
    """A hard link where the file system can, else a copy."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
