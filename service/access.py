"""Who may ask over the network: keys, the principals they name, and how often each may ask."""

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from store.api_keys import ApiKeys
from store.records import ApiKey

LOCAL = "local"  # everybody on loopback while no key is asked for, and the owner of the Unix socket
PREFIX = "hk_"
PRINCIPAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MAX_PRINCIPALS = 10_000  # remembered by the rate limit at once


class BadPrincipal(ValueError):
    """The name cannot be a principal's."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is told once, and what is kept of it."""

    text: str
    record: ApiKey


class Access:
    """Makes, revokes and recognises keys."""

    def __init__(self, keys: ApiKeys, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def add(self, principal: str) -> NewKey:
        """A new random key for this principal. BadPrincipal when the name is taken by the house or no name."""
        if principal == LOCAL or not PRINCIPAL.fullmatch(principal):
            raise BadPrincipal(f"{principal!r} cannot name a principal; use letters, digits and . _ @ -, not {LOCAL!r}")
        text = PREFIX + secrets.token_urlsafe(32)
        record = ApiKey(secrets.token_hex(4), principal, _digest(text), self._clock())
        self._keys.add(record)
        return NewKey(text, record)

    def revoke(self, key_id: str) -> ApiKey:
        """UnknownApiKey when there is none to revoke."""
        return self._keys.revoke(key_id, self._clock())

    def valid(self) -> list[ApiKey]:
        return self._keys.valid()

    def principal(self, text: str) -> str | None:
        """Whose key this is. Found by its digest, so that the time it takes tells nothing about other keys."""
        found = self._keys.find(_digest(text))
        return found.principal if found and secrets.compare_digest(found.digest, _digest(text)) else None


class RateLimit:
    """A token bucket for each principal: `per_minute` requests a minute, as many at once. Not thread-safe."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # principal: tokens left, at

    def wait(self, principal: str) -> float:
        """0 and one token less, or the seconds until there is one."""
        now = self._clock()
        left, at = self._buckets.pop(principal, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - at) * self._per_minute / 60)
        self._buckets[principal] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > MAX_PRINCIPALS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if left >= 1 else (1 - left) * 60 / self._per_minute


def _digest(text: str) -> str:
    """Keys are 256 random bits: a plain digest is as hard to turn round as a slow one."""
    return hashlib.sha256(text.encode()).hexdigest()
