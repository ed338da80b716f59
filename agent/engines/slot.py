"""One request of the embedded engine, from queue to end."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from agent.engine import GenerationRequest, Listener, Token
from agent.engines.scheduler import Sequence
from agent.grammar import Matcher
from agent.tokenizer import TextStream


@dataclass(eq=False, slots=True, kw_only=True)
class Slot(Sequence):
    """One request, from queue to end."""

    listener: Listener
    text: TextStream
    seed: int
    matcher: Matcher | None = None  # where the answer stands in the form it must have
    counts: Counter[int] = field(default_factory=Counter)  # what the answer has said; kept only for penalties
    scored: list[Token] = field(default_factory=list)  # of the prompt, where that was asked
    is_cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.is_cancelled.set()


def require_possible(request: GenerationRequest, max_context: int, vocabulary_size: int) -> None:
    """ValueError for what no model could answer: it must not reach the worker, which others share."""
    length = len(request.prompt_ids)
    if not 0 < length < max_context:
        raise ValueError(f"a prompt of {length} tokens leaves no room in a context of {max_context}")
    for token_id in (*request.prompt_ids, *(token_id for token_id, _ in request.sampling.logit_bias)):
        if not 0 <= token_id < vocabulary_size:
            raise ValueError(f"token {token_id} is outside this model's vocabulary of {vocabulary_size}")
    if request.sampling.max_tokens < (request.prompt_logprobs is None):
        raise ValueError(f"max_tokens {request.sampling.max_tokens} asks for nothing")
