"""Outermost, before anything of a request is read: hosts that may be named, origins that may ask, and keys."""

import base64
import binascii
import math
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import LOCAL, Access, RateLimit
from service.api.errors import ApiError, send_error

CHALLENGE = 'Bearer realm="honed", Basic realm="honed"'  # Basic: a browser asks, and the key is the password


class Door:
    """ASGI middleware. A foreign Host (DNS rebinding), a foreign Origin, or a missing key goes no further.

    Without `access` no key is asked for, and whoever comes is the principal "local".
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], access: Access | None, per_minute: int) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access
        self._rate = RateLimit(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._require_known_place(headers)
            principal = self._principal(headers)
        except ApiError as error:
            await send_error(error, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)

    def _require_known_place(self, headers: Mapping[str, str]) -> None:
        host = _split("//" + headers.get("host", "")).hostname or ""
        if host not in self._hosts:
            raise ApiError(
                403, f"host {host!r} is not one this daemon answers to", param="host", code="host_not_allowed"
            )
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != headers.get("host"):
            raise ApiError(403, f"origin {origin!r} may not ask here", param="origin", code="origin_not_allowed")

    def _principal(self, headers: Mapping[str, str]) -> str:
        if self._access is None:
            return LOCAL
        key = _key(headers.get("authorization", ""))
        principal = self._access.principal(key) if key else None
        if principal is None:
            said = "this key is not known here" if key else "a key is needed: `Authorization: Bearer hk_…`"
            raise ApiError(401, said, code="invalid_api_key", headers={"WWW-Authenticate": CHALLENGE})
        wait = self._rate.wait(principal)
        if wait:
            raise ApiError(
                429,
                f"{principal!r} asks too often; again in {wait:.1f} seconds",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        return principal


def _key(authorization: str) -> str | None:
    """The key of a Bearer header, or the password of a Basic one."""
    kind, _, value = authorization.strip().partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() == "basic":
        try:
            pair = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return pair.partition(":")[2] or None
    return None


def _split(url: str) -> SplitResult:
    """An address that cannot be read is nobody's."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
