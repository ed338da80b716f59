"""From a request to turns under way: what the chat and the completions routes have in common."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from agent.engine import Event, Sampling
from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import SamplingFields
from service.turn import Question, Turn
from service.turns import Asked
from store.records import FinishReason

CHECKPOINT_HEADER = "X-Honed-Checkpoint"
TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,8}")


def principal_of(request: Request) -> str:
    """Whom the door let in."""
    return str(request.state.principal)


def require_model(parts: Parts, name: str) -> None:
    """404 unless `name` is the one served here."""
    if name != parts.model_name:
        raise ApiError(
            404,
            f"model {name!r} is not served here; this is {parts.model_name!r}",
            param="model",
            code="model_not_found",
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked, as the log keeps it and as the model reads it."""

    messages: tuple[Mapping[str, Any], ...]
    ids: tuple[int, ...]
    grammar: str = ""


async def start(
    parts: Parts,
    principal: str,
    body: SamplingFields,
    prompts: Sequence[Prompt],
    *,
    param: str,
    asked_tokens: int | None,
    top_logprobs: int,
    prompt_logprobs: int | None = None,
) -> Asked:
    """Check what only the running model can check, and submit each prompt `n` times.
    `param` names the field the prompts came from.
    """
    questions: list[Question] = []
    most = parts.settings.max_batch + parts.settings.max_waiting
    if len(prompts) * (body.n or 1) > most:
        count = f"{len(prompts)} × {body.n or 1}"
        raise ApiError(
            400,
            f"{count} answers are more than the {most} that can be under way; ask for fewer",
            param="n",
            code="invalid_value",
        )
    if asked_tokens is None:
        asked_tokens = parts.settings.default_max_tokens
    for prompt in prompts:
        room = parts.loader.max_context - len(prompt.ids)
        if room < 1:
            raise ApiError(
                400,
                f"{param} come to {len(prompt.ids)} tokens; this model's context holds {parts.loader.max_context}",
                param=param,
                code="context_length_exceeded",
            )
        for index in range(body.n or 1):
            settings = sampling(parts, body, min(asked_tokens, room), top_logprobs, index)
            questions.append(Question(prompt.messages, prompt.ids, settings, prompt_logprobs, prompt.grammar))
    return await parts.turns.start(principal, questions)


def sampling(parts: Parts, body: SamplingFields, max_tokens: int, top_logprobs: int, index: int) -> Sampling:
    """The settings of choice `index`; with a seed, each choice has one of its own that follows from it."""
    settings = parts.settings
    return Sampling(
        temperature=settings.default_temperature if body.temperature is None else body.temperature,
        top_p=settings.default_top_p if body.top_p is None else body.top_p,
        top_k=max(body.top_k or 0, 0),
        min_p=body.min_p or 0.0,
        seed=None if body.seed is None else (body.seed + index) % 2**63,
        max_tokens=max_tokens,
        stop=body.stops,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_logit_bias(parts, body.logit_bias or {}),
        ignore_eos=bool(body.ignore_eos),
        top_logprobs=top_logprobs,
    )


def _logit_bias(parts: Parts, biases: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    size = parts.loader.vocabulary_size
    for token in biases:
        if not TOKEN_ID.fullmatch(token) or int(token) >= size:
            raise ApiError(
                400,
                f"logit_bias: {token!r} is not a token id; this model's go from 0 to {size - 1}",
                param="logit_bias",
                code="invalid_value",
            )
    return tuple((int(token), value) for token, value in biases.items())


async def collect(parts: Parts, asked: Asked, request: Request) -> None:
    """Wait for the whole answers, giving up when the client does; the rows are durable on return.
    503 when the engine failed.
    """
    leaving = asyncio.create_task(_abandon_when_gone(request, asked))
    try:
        async for _ in asked.events():
            pass
    finally:
        leaving.cancel()
        asked.abandon()
        await parts.turns.save(asked.turns)
    for turn in asked.turns:
        if turn.end is not None and turn.end.reason is FinishReason.ERROR:
            raise failure(turn)


async def _abandon_when_gone(request: Request, asked: Asked) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    asked.abandon()


async def follow(parts: Parts, asked: Asked) -> AsyncGenerator[tuple[Turn, Event], None]:
    """Events as they come; the rows are durable when this ends, also when the client went away."""
    try:
        async for turn, event in asked.events():
            yield turn, event
    finally:
        asked.abandon()
        await parts.turns.save(asked.turns)


def failure(turn: Turn) -> ApiError:
    """The error of a turn that its engine left."""
    said = turn.end.error if turn.end else None
    return ApiError(503, said or "the engine failed", code="engine_failed")
