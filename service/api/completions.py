"""POST /v1/completions, /tokenize and /detokenize: text as it is, without a conversation around it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from agent.engine import Finished, Token
from service.api import shapes
from service.api.asking import CHECKPOINT_HEADER, Prompt, collect, failure, follow, principal_of, require_model, start
from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import CompletionRequest, DetokenizeRequest, TokenizeRequest
from service.api.tools import plain
from service.turn import Turn
from service.turns import Asked, is_saved
from store.records import FinishReason

DEFAULT_MAX_TOKENS = 16  # as OpenAI's


def router(parts: Parts) -> APIRouter:
    """The routes for plain text over these parts."""
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        asked = await _start(parts, body, principal_of(request))
        headers = {CHECKPOINT_HEADER: shapes.checkpoints(asked.turns)}
        if body.stream:
            return StreamingResponse(_stream(parts, asked, body), media_type="text/event-stream", headers=headers)
        await collect(parts, asked, request)
        return JSONResponse(_completion(parts, asked.turns, body), headers=headers)

    @routes.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        require_model(parts, body.model or parts.model_name)
        tokenizer = parts.loader.tokenizer
        if body.messages is not None:
            ids = tokenizer.chat_ids([plain(message) for message in body.messages])
        else:
            ids = tokenizer.ids(body.prompt or "")
        return {"tokens": ids, "count": len(ids), "max_model_len": parts.loader.max_context}

    @routes.post("/detokenize")
    def detokenize(body: DetokenizeRequest) -> dict[str, str]:
        require_model(parts, body.model or parts.model_name)
        _require_known(parts, body.tokens, "tokens")
        return {"prompt": parts.loader.tokenizer.text(body.tokens)}

    return routes


async def _start(parts: Parts, body: CompletionRequest, principal: str) -> Asked:
    require_model(parts, body.model)
    if body.echo and body.stream:
        raise ApiError(400, "echo is not streamed; leave one of the two out", param="echo", code="invalid_value")
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not (body.echo and body.logprobs is not None):
        raise ApiError(400, "max_tokens 0 is only for echo with logprobs", param="max_tokens", code="invalid_value")
    is_scored = body.echo and body.logprobs is not None
    return await start(
        parts,
        principal,
        body,
        [_prompt(parts, prompt) for prompt in body.prompt],
        param="prompt",
        asked_tokens=max_tokens,
        top_logprobs=body.logprobs or 0,
        prompt_logprobs=body.logprobs if is_scored else None,
    )


def _prompt(parts: Parts, prompt: str | Sequence[int]) -> Prompt:
    tokenizer = parts.loader.tokenizer
    if isinstance(prompt, str):
        ids, text = tokenizer.ids(prompt), prompt
    else:
        _require_known(parts, prompt, "prompt")
        ids, text = list(prompt), tokenizer.text(prompt)
    if not ids:
        raise ApiError(400, "prompt: it is empty; send at least one token", param="prompt", code="invalid_value")
    return Prompt(({"role": "user", "content": text},), tuple(ids))


def _require_known(parts: Parts, ids: Sequence[int], param: str) -> None:
    size = parts.loader.vocabulary_size
    for token_id in ids:
        if token_id >= size:
            message = f"{param}: {token_id} is not a token id; this model's go from 0 to {size - 1}"
            raise ApiError(400, message, param=param, code="invalid_value")


def _completion(parts: Parts, turns: list[Turn], body: CompletionRequest) -> dict[str, Any]:
    return {
        **shapes.envelope(turns, parts.model_name, "text_completion", "cmpl"),
        "choices": [_choice(parts, turn, body) for turn in turns],
        "usage": shapes.usage(turns, body.n or 1),
        "honed": _honed(turns[0]),
    }


def _choice(parts: Parts, turn: Turn, body: CompletionRequest) -> dict[str, Any]:
    prompt = str(turn.messages[0]["content"]) if body.echo else ""
    logprobs = None
    if body.logprobs is not None:
        first = parts.loader.tokenizer.piece(turn.prompt_ids[0]) if body.echo else None
        logprobs = shapes.text_logprobs([*turn.prompt_tokens, *turn.tokens], first)
    return {
        "index": turn.index,
        "text": prompt + turn.reply,
        "finish_reason": turn.end.reason.value if turn.end else None,
        "logprobs": logprobs,
        "honed": _honed(turn),
    }


def _honed(turn: Turn) -> dict[str, Any]:
    """What has no row has no name there to give feedback on."""
    return shapes.honed(turn) | ({} if is_saved(turn) else {"interaction_id": None})


async def _stream(parts: Parts, asked: Asked, body: CompletionRequest) -> AsyncIterator[str]:
    """Chunks as they come; the rows are durable before the last ones and [DONE]."""
    beginning = shapes.envelope(asked.turns, parts.model_name, "text_completion", "cmpl")

    def chunk(turn: Turn, text: str, reason: str | None, token: Token | None = None, **more: Any) -> str:
        logprobs = shapes.text_logprobs([token], None) if token and body.logprobs is not None else None
        choice = {"index": turn.index, "text": text, "finish_reason": reason, "logprobs": logprobs}
        return shapes.event({**beginning, "choices": [choice], **more})

    async with aclosing(follow(parts, asked)) as events:
        async for turn, event in events:
            if isinstance(event, Token) and (event.text or body.logprobs is not None):
                yield chunk(turn, event.text, None, event)
    for turn in asked.turns:
        end = turn.end or Finished(FinishReason.ERROR)
        if end.reason is FinishReason.ERROR:
            yield shapes.event(failure(turn).body)
            break
        yield chunk(turn, end.text, end.reason.value, honed=shapes.honed(turn))
    else:
        if body.stream_options is not None and body.stream_options.include_usage:
            yield shapes.event({**beginning, "choices": [], "usage": shapes.usage(asked.turns, body.n or 1)})
    yield "data: [DONE]\n\n"
