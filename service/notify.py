"""Tells the service manager how the daemon is doing: the sd_notify datagrams, over NOTIFY_SOCKET.

Without that variable (a terminal, a container) every call does nothing and returns False. When to be ready,
and when a watchdog ping is deserved, is the daemon's business.
"""

import os
import socket
from collections.abc import Mapping

SEND_SECONDS = 1.0  # a stuck service manager may not hold up the daemon


def ready(status: str = "", *, environment: Mapping[str, str] = os.environ) -> bool:
    return notify("READY=1", *_status_line(status), environment=environment)


def stopping(status: str = "", *, environment: Mapping[str, str] = os.environ) -> bool:
    return notify("STOPPING=1", *_status_line(status), environment=environment)


def status(text: str, *, environment: Mapping[str, str] = os.environ) -> bool:
    return notify(*_status_line(text), environment=environment)


def watchdog(*, environment: Mapping[str, str] = os.environ) -> bool:
    return notify("WATCHDOG=1", environment=environment)


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Sends the lines as one datagram; False when there is nobody to tell or it could not be delivered.

    A lost notification is no reason to stop serving: the manager's own time limits are the remedy.
    """
    name = environment.get("NOTIFY_SOCKET", "")
    if not lines or not name.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(SEND_SECONDS)
        try:
            sock.sendto("\n".join(lines).encode(), _address(name))
        except OSError:
            return False
    return True


def watchdog_interval(*, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds between pings: half of what the manager allows, None when it expects none of this process."""
    allowed = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", "")
    if not allowed or (meant_for and meant_for != str(os.getpid() if pid is None else pid)):
        return None
    if not (allowed.isascii() and allowed.isdigit()):
        raise ValueError(f"WATCHDOG_USEC must be a whole number of microseconds, got {allowed!r}; unset it")
    return int(allowed) / 2_000_000 or None


def _address(name: str) -> str:
    return "\0" + name[1:] if name.startswith("@") else name  # "@" stands for the abstract namespace


def _status_line(text: str) -> list[str]:
    one_line = " ".join(text.split())  # a line break would start another assignment
    return [f"STATUS={one_line}"] if one_line else []
