"""One chat turn: a prompt to the model that serves now, its tokens as they come, and the row that remembers it."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.engine import EngineClosed, Event, Finished, GenerationRequest, Sampling, Ticket, Token
from agent.serving import ServedModel, Serving
from agent.uncertainty import mean_entropy
from store.interactions import Interactions
from store.records import FinishReason, Interaction, TokenTrace

log = structlog.get_logger()


@dataclass(slots=True)
class Turn:
    """A turn under way. Iterate `events()`, then `save()` exactly once."""

    id: str
    principal: str
    messages: tuple[Mapping[str, Any], ...]
    sampling: Sampling
    prompt_ids: tuple[int, ...]
    served: ServedModel
    started_at: float
    started: float  # monotonic
    ticket: Ticket
    queue: "asyncio.Queue[Event]"
    tokens: list[Token] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    end: Finished | None = None

    @property
    def checkpoint_id(self) -> str:
        return self.served.checkpoint_id

    @property
    def reply(self) -> str:
        return "".join(self.pieces)

    @property
    def uncertainty(self) -> float | None:
        return mean_entropy(self._traces())

    async def events(self) -> AsyncIterator[Event]:
        """Tokens and, last, the end."""
        while self.end is None:
            event = await self.queue.get()
            self.pieces.append(event.text)
            if isinstance(event, Finished):
                self.end = event
            else:
                self.tokens.append(event)
            yield event

    def abandon(self) -> None:
        """The client went away: stop generating and remember it as that."""
        self.ticket.cancel()
        if self.end is None:
            self.end = Finished(FinishReason.DISCONNECT)

    def record(self) -> Interaction:
        reason = self.end.reason if self.end else FinishReason.DISCONNECT
        return Interaction(
            id=self.id,
            conversation_id=conversation_id(self.principal, self.messages),
            created_at=self.started_at,
            principal=self.principal,
            checkpoint_id=self.checkpoint_id,
            messages=self.messages,
            reply=self.reply,
            finish_reason=reason,
            tokens=self._traces(),
            prompt_tokens=len(self.prompt_ids),
            latency_seconds=time.monotonic() - self.started,
            uncertainty=self.uncertainty,
            sampling={
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "seed": self.sampling.seed,
                "max_tokens": self.sampling.max_tokens,
            },
        )

    def _traces(self) -> tuple[TokenTrace, ...]:
        return tuple(TokenTrace(token.id, token.logprob, token.entropy) for token in self.tokens)


class Turns:
    """Starts turns on whatever serves, and makes them durable."""

    def __init__(self, serving: Serving, interactions: Interactions) -> None:
        self._serving = serving
        self._interactions = interactions

    def start(
        self, principal: str, messages: tuple[Mapping[str, Any], ...], prompt_ids: tuple[int, ...], sampling: Sampling
    ) -> Turn:
        """Submit to the engine. EngineBusy when its queue is full; EngineClosed only when no engine is alive."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        request = GenerationRequest(prompt_ids, sampling)

        def listen(event: Event) -> None:  # on the engine's thread
            loop.call_soon_threadsafe(events.put_nowait, event)

        served, ticket = self._submit(request, listen)
        return Turn(
            uuid.uuid4().hex,
            principal,
            messages,
            sampling,
            prompt_ids,
            served,
            time.time(),
            time.monotonic(),
            ticket,
            events,
        )

    async def save(self, turn: Turn) -> None:
        """Durable on return, also when the client went away meanwhile: a cancelled wait must not cancel the write."""
        written = asyncio.wrap_future(self._interactions.submit(turn.record()))
        await asyncio.shield(written)
        log.info(
            "turn.finished",
            interaction=turn.id,
            checkpoint=turn.checkpoint_id,
            reason=turn.end.reason.value if turn.end else None,
            tokens=len(turn.tokens),
            seconds=round(time.monotonic() - turn.started, 3),
        )

    def _submit(self, request: GenerationRequest, listen: Any) -> tuple[ServedModel, Ticket]:
        served = self._serving.current
        try:
            return served, served.engine.submit(request, listen)
        except EngineClosed:
            again = self._serving.current
            if again is served:
                raise
            return again, again.engine.submit(request, listen)  # it was swapped between the two lines


def conversation_id(principal: str, messages: tuple[Mapping[str, Any], ...]) -> str:
    """Chat requests carry their whole history: the same beginning is the same conversation."""
    first = next((str(m["content"]) for m in messages if m["role"] == "user"), "")
    return hashlib.sha256(f"{principal}\x1f{first}".encode()).hexdigest()[:32]
