"""Drives a daemon process through chat, feedback, training and promotion, and remembers what was acknowledged."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.client import Client, NoDaemon, Refused
from service.paths import Paths

READY_SECONDS = 90


@dataclass(slots=True)
class Acknowledged:
    """What the daemon said is safe."""

    turns: dict[str, dict[str, Any]] = field(default_factory=dict)  # interaction id → reply
    feedback: dict[str, str] = field(default_factory=dict)  # feedback id → interaction id
    checkpoints: set[str] = field(default_factory=set)  # that any answer named


class DaemonProcess:
    """A real daemon that can be killed and started again, as a service manager would."""

    def __init__(self, state: Path, environment: dict[str, str]) -> None:
        self.state = state
        self.client = Client(Paths(state).socket)
        self._environment = {**os.environ, "HONED_STATE": str(state), "HONED_PORT": "0", **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.state.parent / "daemon.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"], env=self._environment, stdout=output, stderr=output
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"the daemon did not start: {(self.state.parent / 'daemon.log').read_text()[-3000:]}"
                )
            try:
                self.client.get("/health/ready")
            except (NoDaemon, Refused, OSError, ValueError):
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("the daemon was not ready in time")

    def kill(self) -> None:
        if self._process is None:
            raise RuntimeError("there is no daemon to kill; start it first")
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=60)


def keep_talking(client: Client, model: str, acknowledged: Acknowledged, stop: threading.Event) -> None:
    """Chat and give feedback until told to stop or the daemon dies; only what was answered counts."""
    number = 0
    while not stop.is_set():
        number += 1
        body = {
            "model": model,
            "messages": [{"role": "user", "content": f"question {number}"}],
            "max_tokens": 12,
            "temperature": 0,
        }
        try:
            reply = client.post("/v1/chat/completions", body)
            turn = reply["honed"]
            acknowledged.turns[turn["interaction_id"]] = {"reply": reply["choices"][0]["message"]["content"]}
            acknowledged.checkpoints.add(turn["checkpoint"])
            given = client.post(
                "/v1/feedback", {"interaction_id": turn["interaction_id"], "correction": f"answer {number}"}
            )
            acknowledged.feedback[given["id"]] = turn["interaction_id"]
        except (NoDaemon, Refused, OSError, json.JSONDecodeError):
            time.sleep(0.05)
