"""The command line's way to the daemon: HTTP over its Unix socket. Standard library, so that commands start quickly."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 600.0  # a promotion loads a model before it answers


class NoDaemon(ConnectionError):
    """Nobody answers on the socket."""


class Refused(RuntimeError):
    """The daemon said no."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", f"the daemon answered {status}")))
        self.status = status
        self.code = error.get("code")
        self.exit_code = error.get("exit_code")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
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

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def get(self, path: str) -> dict[str, Any]:
        return self._request("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", path, body)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Server-sent events until `[DONE]`. Refused when an event is an error."""
        connection, response = self._send("POST", path, body)
        try:
            if response.status >= 400:
                raise _refusal(response)
            for line in response:
                text = line.decode().strip()
                if text == "data: [DONE]":
                    return
                if text.startswith("data: "):
                    event: dict[str, Any] = json.loads(text[6:])
                    if "error" in event:
                        raise Refused(503, event["error"])
                    yield event
        finally:
            connection.close()

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        connection, response = self._send(method, path, body)
        try:
            if response.status >= 400:
                raise _refusal(response)
            value: dict[str, Any] = json.loads(response.read())
            return value
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = _UnixConnection(self._path)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, headers)
            return connection, connection.getresponse()
        except NoDaemon:
            connection.close()
            raise
        except http.client.RemoteDisconnected as error:
            connection.close()
            raise NoDaemon(f"the daemon at {self._path} went away") from error


def _refusal(response: http.client.HTTPResponse) -> Refused:
    text = response.read()
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError):
        error = {"message": f"the daemon answered {response.status}: {text[:200]!r}"}
    return Refused(response.status, error)
