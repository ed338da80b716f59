"""What answers look like on the wire: OpenAI's shapes, and beside them what only this daemon knows."""

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from agent.engine import Token
from service.turn import Turn

encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def event(value: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {encode(value)}\n\n"


def envelope(turns: Sequence[Turn], model_name: str, kind: str, prefix: str) -> dict[str, Any]:
    """What every answer and every chunk of a request begin with."""
    return {
        "id": f"{prefix}-{turns[0].id}",
        "object": kind,
        "created": int(turns[0].started_at),
        "model": model_name,
        "system_fingerprint": checkpoints(turns),
    }


def checkpoints(turns: Sequence[Turn]) -> str:
    """The checkpoint that answers; where several prompts are near and far, both, each choice naming its own."""
    return ",".join(dict.fromkeys(turn.checkpoint_id for turn in turns))


def honed(turn: Turn) -> dict[str, Any]:
    """Under which name the log knows this answer, who gave it, and how sure it was."""
    return {"interaction_id": turn.id, "checkpoint": turn.checkpoint_id, "uncertainty": turn.uncertainty}


def usage(turns: Sequence[Turn], num_choices: int) -> dict[str, Any]:
    """A prompt counts once, however many choices of it were asked for."""
    prompts = turns[::num_choices]
    prompt = sum(len(turn.prompt_ids) for turn in prompts)
    completion = sum(len(turn.tokens) for turn in turns)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(turn.end.num_cached for turn in prompts if turn.end)},
    }


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""
    return {"content": [_token_logprob(token) for token in tokens]}


def _token_logprob(token: Token) -> dict[str, Any]:
    top = [{"token": a.text, "bytes": list(a.text.encode()), "logprob": a.logprob} for a in token.top]
    piece = {"token": token.piece, "bytes": list(token.piece.encode()), "logprob": token.logprob}
    return {**piece, "top_logprobs": top}


def text_logprobs(tokens: Sequence[Token], first: str | None) -> dict[str, Any]:
    """The `logprobs` of a completion. `first`: an echoed prompt's first token, which nothing makes likely or not."""
    pieces = [*([first] if first is not None else []), *(token.piece for token in tokens)]
    unknown: list[None] = [None] if first is not None else []
    return {
        "tokens": pieces,
        "token_logprobs": [*unknown, *(token.logprob for token in tokens)],
        "top_logprobs": [*unknown, *({a.text: a.logprob for a in token.top} for token in tokens)],
        "text_offset": [*accumulate((len(piece) for piece in pieces[:-1]), initial=0)] if pieces else [],
    }
