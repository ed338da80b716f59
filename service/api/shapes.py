"""What answers look like on the wire: OpenAI's shapes, and beside them what only this daemon knows."""

import json
from collections.abc import Sequence
from typing import Any

from agent.engine import Token
from service.turns import Turn


def event(value: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def envelope(turn: Turn, model_name: str, kind: str, prefix: str) -> dict[str, Any]:
    """What every answer and every chunk of a request begin with; `turn` is its first."""
    return {
        "id": f"{prefix}-{turn.id}",
        "object": kind,
        "created": int(turn.started_at),
        "model": model_name,
        "system_fingerprint": turn.checkpoint_id,
    }


def honed(turn: Turn) -> dict[str, Any]:
    """Under which name the log knows this answer, who gave it, and how sure it was."""
    return {"interaction_id": turn.id, "checkpoint": turn.checkpoint_id, "uncertainty": turn.uncertainty}


def usage(turns: Sequence[Turn]) -> dict[str, Any]:
    """The prompt counts once, however many choices were asked for."""
    prompt, completion = len(turns[0].prompt_ids), sum(len(turn.tokens) for turn in turns)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""
    return {"content": [_token_logprob(token) for token in tokens]}


def _token_logprob(token: Token) -> dict[str, Any]:
    top = [{"token": a.text, "bytes": list(a.text.encode()), "logprob": a.logprob} for a in token.top]
    piece = {"token": token.piece, "bytes": list(token.piece.encode()), "logprob": token.logprob}
    return {**piece, "top_logprobs": top}
