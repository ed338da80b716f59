"""POST /v1/chat/completions and GET /v1/models, in OpenAI's shapes."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from agent.engine import Finished, Sampling, Token
from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import ChatRequest
from service.turns import Turn
from store.records import FinishReason

CHECKPOINT_HEADER = "X-Honed-Checkpoint"
PRINCIPAL = "local"  # until there are keys, everybody on loopback is one person


def router(parts: Parts) -> APIRouter:
    """The chat routes over these parts."""
    routes = APIRouter()

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(parts)]}

    @routes.get("/v1/models/{name}")
    def model(name: str) -> dict[str, Any]:
        _require_model(parts, name)
        return _model(parts)

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        turn = start_turn(parts, body)
        headers = {CHECKPOINT_HEADER: turn.checkpoint_id}
        if body.stream:
            stream = _stream(parts, turn, body)
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
        await _collect(parts, turn, request)
        if turn.end is not None and turn.end.reason is FinishReason.ERROR:
            raise ApiError(503, turn.end.error or "the engine failed", code="engine_failed")
        return JSONResponse(_completion(parts, turn, body), headers=headers)

    return routes


def start_turn(parts: Parts, body: ChatRequest) -> Turn:
    """Check what only the running model can check, and submit."""
    _require_model(parts, body.model)
    messages = tuple({"role": message.role, "content": message.content} for message in body.messages)
    if body.messages[-1].role != "user":
        raise ApiError(400, "messages: the last one must be the user's", param="messages", code="invalid_value")
    prompt_ids = tuple(parts.loader.tokenizer.chat_ids(messages))
    room = parts.loader.max_context - len(prompt_ids)
    if room < 1:
        raise ApiError(
            400,
            f"messages come to {len(prompt_ids)} tokens; this model's context holds {parts.loader.max_context}",
            param="messages",
            code="context_length_exceeded",
        )
    return parts.turns.start(PRINCIPAL, messages, prompt_ids, _sampling(parts, body, room))


def _sampling(parts: Parts, body: ChatRequest, room: int) -> Sampling:
    settings = parts.settings
    asked = body.max_completion_tokens or body.max_tokens or settings.default_max_tokens
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    return Sampling(
        temperature=settings.default_temperature if body.temperature is None else body.temperature,
        top_p=settings.default_top_p if body.top_p is None else body.top_p,
        seed=None if body.seed is None else body.seed % 2**63,
        max_tokens=min(asked, room),
        stop=body.stops,
        top_logprobs=body.top_logprobs or 0,
    )


def _require_model(parts: Parts, name: str) -> None:
    if name != parts.model_name:
        raise ApiError(
            404,
            f"model {name!r} is not served here; this is {parts.model_name!r}",
            param="model",
            code="model_not_found",
        )


def _model(parts: Parts) -> dict[str, Any]:
    return {
        "id": parts.model_name,
        "object": "model",
        "created": int(parts.started_at),
        "owned_by": "honed",
        "honed": {"checkpoint": parts.serving.current.checkpoint_id, "base": parts.loader.base_id},
    }


async def _collect(parts: Parts, turn: Turn, request: Request) -> None:
    """Wait for the whole answer, giving up when the client does; the row is durable on return."""
    try:
        async for _ in turn.events():
            if await request.is_disconnected():
                turn.abandon()
    finally:
        if turn.end is None:
            turn.abandon()
        await parts.turns.save(turn)


async def _stream(parts: Parts, turn: Turn, body: ChatRequest) -> AsyncIterator[str]:
    """Chunks as they come. The row is durable before the last chunk, which names the interaction, and [DONE]."""
    is_saved = False
    try:
        yield _event(_chunk(parts, turn, {"role": "assistant", "content": ""}))
        async for event in turn.events():
            if isinstance(event, Token) and (event.text or body.logprobs):
                yield _event(_chunk(parts, turn, {"content": event.text}, logprobs=_logprobs([event], body)))
        await parts.turns.save(turn)
        is_saved = True
        for line in _ending(parts, turn, body):
            yield line
    finally:
        if not is_saved:  # the client went away, and this generator was closed
            turn.abandon()
            await parts.turns.save(turn)


def _ending(parts: Parts, turn: Turn, body: ChatRequest) -> list[str]:
    end = turn.end or Finished(FinishReason.ERROR)
    if end.reason is FinishReason.ERROR:
        error = ApiError(503, end.error or "the engine failed", code="engine_failed")
        return [_event(error.body), "data: [DONE]\n\n"]
    lines = [_event(_chunk(parts, turn, {"content": end.text}))] if end.text else []
    last = _chunk(parts, turn, {}, finish_reason=end.reason.value)
    if body.stream_options is None or not body.stream_options.include_usage:
        return [*lines, _event({**last, "honed": _honed(turn)}), "data: [DONE]\n\n"]
    usage = {**_chunk(parts, turn, None), "usage": _usage(turn), "honed": _honed(turn)}
    return [*lines, _event(last), _event(usage), "data: [DONE]\n\n"]


def _completion(parts: Parts, turn: Turn, body: ChatRequest) -> dict[str, Any]:
    reason = turn.end.reason.value if turn.end else None
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": turn.reply},
        "finish_reason": reason,
        "logprobs": _logprobs(turn.tokens, body),
    }
    return {
        **_envelope(parts, turn, "chat.completion"),
        "choices": [choice],
        "usage": _usage(turn),
        "honed": _honed(turn),
    }


def _chunk(
    parts: Parts, turn: Turn, delta: dict[str, str] | None, *, finish_reason: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}]
    )
    return {**_envelope(parts, turn, "chat.completion.chunk"), "choices": choices}


def _envelope(parts: Parts, turn: Turn, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{turn.id}",
        "object": kind,
        "created": int(turn.started_at),
        "model": parts.model_name,
        "system_fingerprint": turn.checkpoint_id,
    }


def _honed(turn: Turn) -> dict[str, Any]:
    return {"interaction_id": turn.id, "checkpoint": turn.checkpoint_id, "uncertainty": turn.uncertainty}


def _usage(turn: Turn) -> dict[str, int]:
    prompt, completion = len(turn.prompt_ids), len(turn.tokens)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _logprobs(tokens: list[Token], body: ChatRequest) -> dict[str, Any] | None:
    if not body.logprobs:
        return None
    return {"content": [_token_logprob(token) for token in tokens]}


def _token_logprob(token: Token) -> dict[str, Any]:
    top = [{"token": a.text, "bytes": list(a.text.encode()), "logprob": a.logprob} for a in token.top]
    piece = {"token": token.piece, "bytes": list(token.piece.encode()), "logprob": token.logprob}
    return {**piece, "top_logprobs": top}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"
