"""The two applications: the public one for TCP, and the operator's for the Unix socket,
which has the public routes too.
"""

from fastapi import FastAPI

from service.access import Access
from service.api import chat, completions, embeddings, errors, operator, people
from service.api.door import Door
from service.api.limits import Limits
from service.api.operator import OperatorParts
from service.api.parts import Parts
from service.api.room import Room


def public_app(parts: Parts, access: Access | None) -> FastAPI:
    """Chat, feedback, health, the page; with `access`, for those who have a key."""
    app = _app(parts)
    settings = parts.settings
    app.add_middleware(Door, hosts=settings.hosts, access=access, per_minute=settings.requests_per_minute)
    return app


def operator_app(parts: Parts, operator_parts: OperatorParts) -> FastAPI:
    """Everything public, and the verbs that only the socket's owner has. To open the socket is to have the key."""
    app = _app(parts)
    app.include_router(operator.router(operator_parts))
    app.add_middleware(Door, hosts=parts.settings.hosts, access=None, per_minute=parts.settings.requests_per_minute)
    return app


def _app(parts: Parts) -> FastAPI:
    app = FastAPI(title="honed", docs_url=None, redoc_url=None)
    app.include_router(chat.router(parts))
    app.include_router(completions.router(parts))
    app.include_router(embeddings.router(parts))
    app.include_router(people.router(parts))
    errors.install(app)
    app.add_middleware(Room, turns=parts.turns)
    app.add_middleware(Limits, max_body_bytes=parts.settings.max_body_bytes)  # around it: the last added is outermost
    return app
