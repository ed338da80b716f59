"""The command line's way to the daemon: HTTP over its Unix socket. Standard library, so that commands start quickly."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 600.0  # a promotion loads a model before it answers


class NoDaemon(ConnectionError):
    """Nobody answers on the socket."""


class BrokenOff(NoDaemon):
    """Somebody was there, and did not answer, or not to the end."""


class Refused(RuntimeError):
    """The daemon said no."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", f"the daemon answered {status}")))
        self.status = status
        self.code = error.get("code")
        self.exit_code = error.get("exit_code")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError as error:  # not there, nobody behind it, not ours, too long a path
            raise NoDaemon(f"no daemon answers at {self._path}: {error.strerror or error}") from error


class Client:
    """Requests to the daemon of one state directory."""

    def __init__(self, socket_path: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path = socket_path
        self._timeout_seconds = timeout_seconds

    def get(self, path: str) -> dict[str, Any]:
        return self._request("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", path, body)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Server-sent events until `[DONE]`. Refused when an event is an error, BrokenOff when that end never comes."""
        with self._answer("POST", path, body) as response:
            for line in response:
                text = line.decode().strip()
                if text == "data: [DONE]":
                    return
                if text.startswith("data: "):
                    event: dict[str, Any] = json.loads(text[6:])
                    if "error" in event:
                        raise Refused(503, event["error"])
                    yield event
            raise BrokenOff(f"the answer of the daemon at {self._path} broke off before its end")

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._answer(method, path, body) as response:
            value: dict[str, Any] = json.loads(response.read())
            return value

    @contextmanager
    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[http.client.HTTPResponse]:
        """What the daemon answers, while it is read. Refused for an error, NoDaemon where it says nothing whole."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        connection = _UnixConnection(self._path, self._timeout_seconds)
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            if response.status >= 300:  # it sends nobody elsewhere
                raise _refusal(response)
            yield response
        except NoDaemon:
            raise
        except TimeoutError as error:
            waited = f"{self._timeout_seconds:g} seconds"
            raise BrokenOff(f"the daemon at {self._path} did not answer within {waited}") from error
        except (http.client.HTTPException, OSError, ValueError) as error:  # reset, cut off, or not what we speak
            why = str(error) or type(error).__name__
            raise BrokenOff(f"the daemon at {self._path} gave no whole answer: {why}") from error
        finally:
            connection.close()


def _refusal(response: http.client.HTTPResponse) -> Refused:
    text = response.read()
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": f"the daemon answered {response.status}: {text[:200]!r}"}
    return Refused(response.status, error)
