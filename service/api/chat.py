"""POST /v1/chat/completions and GET /v1/models, in OpenAI's shapes."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from agent.engine import Finished, Token
from agent.grammar import CALL_BEGIN
from service.api import shapes
from service.api.asking import CHECKPOINT_HEADER, Prompt, collect, failure, follow, principal_of, require_model, start
from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import ChatRequest
from service.api.tools import calls_of, form_of, offered, written_out
from service.turn import Turn
from service.turns import Asked
from store.records import FinishReason


def router(parts: Parts) -> APIRouter:
    """The chat routes over these parts."""
    routes = APIRouter()

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(parts)]}

    @routes.get("/v1/models/{name}")
    def model(name: str) -> dict[str, Any]:
        require_model(parts, name)
        return _model(parts)

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        form = await compiled(parts, body)
        asked = await _start(parts, body, form, principal_of(request))
        headers = {CHECKPOINT_HEADER: shapes.checkpoints(asked.turns)}
        if body.stream:
            return StreamingResponse(_stream(parts, asked, body), media_type="text/event-stream", headers=headers)
        await collect(parts, asked, request)
        return JSONResponse(_completion(parts, asked.turns, body), headers=headers)

    return routes


async def compiled(parts: Parts, body: ChatRequest) -> str:
    """The answer's form, compiled beside the event loop: that can take a second. 400 when it cannot be."""
    try:
        form = form_of(body)
        if form:
            await run_in_threadpool(parts.loader.grammars.matcher, form)
    except ValueError as error:
        param = "tools" if body.tools else "response_format"
        raise ApiError(400, f"{param}: {error}", param=param, code="invalid_value") from None
    return form


async def _start(parts: Parts, body: ChatRequest, form: str, principal: str) -> Asked:
    require_model(parts, body.model)
    messages = written_out(body)
    if body.messages[-1].role not in ("user", "tool"):
        raise ApiError(
            400, "messages: the last one must be the user's or a tool's", param="messages", code="invalid_value"
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    return await start(
        parts,
        principal,
        body,
        [Prompt(messages, tuple(parts.loader.tokenizer.chat_ids(messages)), form)],
        param="messages",
        asked_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=body.top_logprobs or 0,
    )


def _model(parts: Parts) -> dict[str, Any]:
    return {
        "id": parts.model_name,
        "object": "model",
        "created": int(parts.started_at),
        "owned_by": "honed",
        "honed": {"checkpoint": parts.serving.current.checkpoint_id, "base": parts.loader.base_id},
    }


def _completion(parts: Parts, turns: list[Turn], body: ChatRequest) -> dict[str, Any]:
    return {
        **shapes.envelope(turns, parts.model_name, "chat.completion", "chatcmpl"),
        "choices": [_choice(turn, body) for turn in turns],
        "usage": shapes.usage(turns, len(turns)),
        "honed": shapes.honed(turns[0]),
    }


def _choice(turn: Turn, body: ChatRequest) -> dict[str, Any]:
    said, calls = calls_of(turn.reply, offered(body))
    message = {"role": "assistant", "content": None if calls and not said else said}
    return {
        "index": turn.index,
        "message": {**message, "tool_calls": calls} if calls else message,
        "finish_reason": "tool_calls" if calls else turn.end.reason.value if turn.end else None,
        "logprobs": shapes.chat_logprobs(turn.tokens) if body.logprobs else None,
        "honed": shapes.honed(turn),
    }


async def _stream(parts: Parts, asked: Asked, body: ChatRequest) -> AsyncIterator[str]:
    """Chunks as they come. The rows are durable before the last chunks, which name the interactions, and [DONE]."""
    chunk = _Chunks(parts, asked.turns)
    for turn in asked.turns:
        yield chunk.of(turn, {"role": "assistant", "content": ""})
    has_tools = bool(offered(body))
    async with aclosing(follow(parts, asked)) as events:
        async for turn, event in events:
            if has_tools and turn.reply.startswith(CALL_BEGIN[: len(turn.reply) or 1]):
                continue  # a call is told whole, at the end
            if isinstance(event, Token) and (event.text or body.logprobs):
                logprobs = shapes.chat_logprobs([event]) if body.logprobs else None
                yield chunk.of(turn, {"content": event.text}, logprobs=logprobs)
    for line in _ending(chunk, asked.turns, body):
        yield line


def _ending(chunk: "_Chunks", turns: list[Turn], body: ChatRequest) -> list[str]:
    lines = []
    for turn in turns:
        end = turn.end or Finished(FinishReason.ERROR)
        if end.reason is FinishReason.ERROR:
            return [shapes.event(failure(turn).body), "data: [DONE]\n\n"]
        said, calls = calls_of(turn.reply, offered(body))
        if calls or (offered(body) and turn.reply.startswith(CALL_BEGIN[:1])):
            numbered = [{"index": number, **call} for number, call in enumerate(calls)]
            lines.append(chunk.of(turn, {"tool_calls": numbered} if calls else {"content": said}))
        elif end.text:
            lines.append(chunk.of(turn, {"content": end.text}))
        reason = "tool_calls" if calls else end.reason.value
        lines.append(chunk.of(turn, {}, finish_reason=reason, honed=shapes.honed(turn)))
    if body.stream_options is not None and body.stream_options.include_usage:
        whole = {
            **chunk.beginning,
            "choices": [],
            "usage": shapes.usage(turns, len(turns)),
            "honed": shapes.honed(turns[0]),
        }
        lines.append(shapes.event(whole))
    return [*lines, "data: [DONE]\n\n"]


class _Chunks:
    """The chunks of one stream, which all begin alike."""

    def __init__(self, parts: Parts, turns: list[Turn]) -> None:
        self.beginning = shapes.envelope(turns, parts.model_name, "chat.completion.chunk", "chatcmpl")

    def of(
        self,
        turn: Turn,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: Any = None,
        honed: dict[str, Any] | None = None,
    ) -> str:
        choice = {"index": turn.index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return shapes.event({**self.beginning, "choices": [choice], **({"honed": honed} if honed else {})})
