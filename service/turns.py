"""Turns: a prompt to the model that serves now, its tokens as they come, and the row that remembers it."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import structlog

from agent.engine import (
    EngineBusy,
    EngineClosed,
    Event,
    Finished,
    GenerationRequest,
    Listener,
    Token,
)
from agent.served import ServedModel
from agent.serving import Serving
from service.mailbox import Mailbox
from service.metrics import Metrics
from service.placing import Placed, Placing
from service.turn import Question, Turn
from store.interactions import Interactions
from store.records import FinishReason

log = structlog.get_logger()


class Asked:
    """The turns of one request and their events in the order they come. What has not ended after so many seconds is
    cut, with reason LENGTH.
    """

    def __init__(self, metrics: Metrics, mailbox: Mailbox, seconds: float) -> None:
        self.turns: list[Turn] = []
        self._metrics = metrics
        self._mailbox = mailbox
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._limit = asyncio.get_running_loop().call_later(seconds, self._cut)

    def listener(self, index: int) -> Listener:
        """For the engine's thread."""
        return lambda event: self._mailbox.put(self._events, index, event)

    async def events(self) -> AsyncIterator[tuple[Turn, Event]]:
        """Tokens and ends, until every turn has ended."""
        while any(turn.end is None for turn in self.turns):
            index, event = await self._events.get()
            turn = self.turns[index]
            if turn.end is not None:
                continue  # it was abandoned meanwhile
            if turn.is_cut and isinstance(event, Finished):
                event = _as_cut(event, has_begun=bool(turn.tokens))
            self._measure(turn, event)
            turn.take(event)
            yield turn, event

    def abandon(self) -> None:
        """The client went away, or all is told."""
        self._limit.cancel()
        for turn in self.turns:
            turn.abandon()

    def _cut(self) -> None:
        for turn in self.turns:
            if turn.end is None:
                turn.is_cut = True
                turn.ticket.cancel()

    def _measure(self, turn: Turn, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Token):
            if turn.tokens:
                self._metrics.next_token(now - turn.newest_at)
            else:
                self._metrics.first_token(now - turn.started)
            turn.newest_at = now


class Turns:
    """Starts turns on whatever serves, and makes them durable."""

    def __init__(
        self,
        serving: Serving,
        interactions: Interactions,
        metrics: Metrics,
        placing: Placing,
        *,
        answer_seconds: float,
    ) -> None:
        self._serving = serving
        self._interactions = interactions
        self._metrics = metrics
        self._placing = placing
        self._answer_seconds = answer_seconds
        self._mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()

    def has_room(self) -> bool:
        """Whether a request that comes now may find a place."""
        return self._serving.has_room() and self._placing.has_room()

    async def start(self, principal: str, questions: Sequence[Question]) -> Asked:
        """Submit each to the one checkpoint that is to answer it; the same question always to the same one.
        EngineBusy when a queue is full, and then none of them runs; EngineClosed only when no engine is alive;
        NotPlaced when it cannot be known who is to answer.
        """
        placed: Placed | None = None
        began, started = time.time(), time.monotonic()
        while True:
            champion = self._serving.current
            if champion.bounds is not None and placed is None:
                placed = await self._placing.vectors([question.text for question in questions])
                continue  # the champion may be another by now
            by_text = {text: champion.for_question(vector) for text, vector in (placed or {}).items()}
            models = [by_text[question.text] if by_text else champion for question in questions]
            try:
                return self._start(models, principal, questions, began, started)
            except EngineClosed:  # swapped after we looked: the next champion takes all of them
                if self._serving.current is champion:
                    raise

    def _start(
        self,
        models: Sequence[ServedModel],
        principal: str,
        questions: Sequence[Question],
        began: float,
        started: float,
    ) -> Asked:
        """`began` by the wall's clock and `started` by the monotonic one are when they were asked."""
        left = self._answer_seconds - (time.monotonic() - started)
        asked = Asked(self._metrics, self._mailbox_here(), left)
        try:
            for index, (served, question) in enumerate(zip(models, questions, strict=True)):
                request = GenerationRequest(
                    question.prompt_ids, question.sampling, principal, question.prompt_logprobs, question.grammar
                )
                ticket = served.engine.submit(request, asked.listener(index))
                asked.turns.append(Turn(uuid.uuid4().hex, principal, question, served, began, started, ticket, index))
        except (EngineBusy, EngineClosed):
            asked.abandon()
            raise
        return asked

    def _mailbox_here(self) -> Mailbox:
        """The running loop's. The two servers share one loop; tests may come with others."""
        loop = asyncio.get_running_loop()
        mailbox = self._mailboxes.get(loop)
        if mailbox is None:
            mailbox = self._mailboxes[loop] = Mailbox()
        return mailbox

    async def save(self, turns: Sequence[Turn]) -> None:
        """Durable on return, also when the client went away meanwhile: a cancelled wait must not cancel the write."""
        for turn in turns:
            self._metrics.ended(turn.reason, time.monotonic() - turn.started)
        turns = [turn for turn in turns if is_saved(turn)]
        began = time.monotonic()
        written = [asyncio.wrap_future(self._interactions.submit(turn.record())) for turn in turns]
        await asyncio.shield(asyncio.gather(*written))
        self._metrics.written(time.monotonic() - began)
        for turn in turns:
            _tell(turn)


def is_saved(turn: Turn) -> bool:
    """Whether it gets a row: what asked for no token was no turn."""
    return turn.question.sampling.max_tokens > 0


def _as_cut(end: Finished, *, has_begun: bool) -> Finished:
    """How an answer ends that took too long: with what it has, or as a failure where it had not begun."""
    if end.reason is not FinishReason.DISCONNECT:
        return end  # it ended by itself at the same moment
    if has_begun:
        return replace(end, reason=FinishReason.LENGTH)
    return replace(end, reason=FinishReason.ERROR, error="no place came free in time; try again shortly")


def _tell(turn: Turn) -> None:
    log.info(
        "turn.finished",
        interaction=turn.id,
        checkpoint=turn.checkpoint_id,
        reason=turn.reason.value,
        tokens=len(turn.tokens),
        seconds=round(time.monotonic() - turn.started, 3),
    )
