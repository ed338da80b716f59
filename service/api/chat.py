"""POST /v1/chat/completions and GET /v1/models, in OpenAI's shapes."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from agent.engine import Finished, Token
from service.api import shapes
from service.api.asking import CHECKPOINT_HEADER, Prompt, collect, failure, follow, principal_of, require_model, start
from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import ChatRequest
from service.turns import Asked, Turn
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
        asked = _start(parts, body, principal_of(request))
        headers = {CHECKPOINT_HEADER: asked.turns[0].checkpoint_id}
        if body.stream:
            return StreamingResponse(_stream(parts, asked, body), media_type="text/event-stream", headers=headers)
        await collect(parts, asked, request)
        return JSONResponse(_completion(parts, asked.turns, body), headers=headers)

    return routes


def _start(parts: Parts, body: ChatRequest, principal: str) -> Asked:
    require_model(parts, body.model)
    messages = tuple({"role": message.role, "content": message.content} for message in body.messages)
    if body.messages[-1].role != "user":
        raise ApiError(400, "messages: the last one must be the user's", param="messages", code="invalid_value")
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    return start(
        parts,
        principal,
        body,
        [Prompt(messages, tuple(parts.loader.tokenizer.chat_ids(messages)))],
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
        **shapes.envelope(turns[0], parts.model_name, "chat.completion", "chatcmpl"),
        "choices": [_choice(turn, body) for turn in turns],
        "usage": shapes.usage(turns, len(turns)),
        "honed": shapes.honed(turns[0]),
    }


def _choice(turn: Turn, body: ChatRequest) -> dict[str, Any]:
    return {
        "index": turn.index,
        "message": {"role": "assistant", "content": turn.reply},
        "finish_reason": turn.end.reason.value if turn.end else None,
        "logprobs": shapes.chat_logprobs(turn.tokens) if body.logprobs else None,
        "honed": shapes.honed(turn),
    }


async def _stream(parts: Parts, asked: Asked, body: ChatRequest) -> AsyncIterator[str]:
    """Chunks as they come. The rows are durable before the last chunks, which name the interactions, and [DONE]."""
    chunk = _Chunks(parts, asked.turns[0])
    for turn in asked.turns:
        yield chunk.of(turn, {"role": "assistant", "content": ""})
    async with aclosing(follow(parts, asked)) as events:
        async for turn, event in events:
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
        if end.text:
            lines.append(chunk.of(turn, {"content": end.text}))
        lines.append(chunk.of(turn, {}, finish_reason=end.reason.value, honed=shapes.honed(turn)))
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

    def __init__(self, parts: Parts, first: Turn) -> None:
        self.beginning = shapes.envelope(first, parts.model_name, "chat.completion.chunk", "chatcmpl")

    def of(
        self,
        turn: Turn,
        delta: dict[str, str],
        *,
        finish_reason: str | None = None,
        logprobs: Any = None,
        honed: dict[str, Any] | None = None,
    ) -> str:
        choice = {"index": turn.index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return shapes.event({**self.beginning, "choices": [choice], **({"honed": honed} if honed else {})})
