"""Real daemons on the tiny models, in this process; their apps over a test client, or over a real loopback port."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.config import Settings
from service.daemon import Daemon

MakeDaemon = Callable[..., Daemon]
BASE_URL = "http://127.0.0.1"


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=BASE_URL)


def post(client: TestClient, path: str, body: Any) -> Any:
    """JSON as the standard library spells it, which can say what httpx cannot; text and bytes go as they are."""
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.post(path, content=content, headers={"Content-Type": "application/json"})


class Desk:
    """A daemon with its two apps' clients."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.apps = daemon.apps(f"{BASE_URL}:0")
        self.public, self.operator = map(client_of, self.apps)

    @property
    def model(self) -> str:
        return self.daemon.model_name

    @property
    def serving(self) -> str:
        return self.daemon.rollout.serving.current.checkpoint_id

    def ask(self, text: str = "Hi", **options: Any) -> dict[str, Any]:
        """One greedy answer, short."""
        response = self.chat({"messages": [{"role": "user", "content": text}], **options})
        assert response.status_code == 200, response.text
        return response.json()

    def chat(self, body: dict[str, Any]) -> Any:
        defaults = {"model": self.model, "temperature": 0, "max_tokens": 6}
        return post(self.public, "/v1/chat/completions", defaults | body)

    def answer(self, text: str = "Hi") -> str:
        return self.ask(text)["choices"][0]["message"]["content"]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app on a free loopback port, in a thread; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def wait_until(is_so: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """The first true answer; AssertionError when none comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not come true within {seconds:g} seconds")


@pytest.fixture
def make_daemon(tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[MakeDaemon]:
    """Daemons of this test alone: `make_daemon(**settings)`. A second one opens the same state again."""
    opened: list[Daemon] = []

    def make(**changes: Any) -> Daemon:
        daemon = Daemon(make_settings(tmp_path / "state", **changes))
        opened.append(daemon)
        return daemon

    yield make
    for daemon in opened:
        if daemon.lock._descriptor is not None:
            daemon.close()


@pytest.fixture
def desk(make_daemon: MakeDaemon) -> Desk:
    """A fresh daemon and its clients."""
    return Desk(make_daemon())


@pytest.fixture(scope="session")
def shared_desk(tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., Settings]) -> Iterator[Desk]:
    """One daemon for tests that only ask and look: its champion is always the base."""
    daemon = Daemon(make_settings(tmp_path_factory.mktemp("shared") / "state"))
    yield Desk(daemon)
    daemon.close()


@pytest.fixture(scope="session")
def shared_address(shared_desk: Desk) -> Iterator[str]:
    """The shared daemon's public app on a real port."""
    with served(shared_desk.apps[0]) as address:
        yield address
