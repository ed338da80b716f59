"""One turn: what was asked, as it is understood, and what became of it, up to its row."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.engine import (
    Event,
    Finished,
    PromptRead,
    Sampling,
    Ticket,
    Token,
)
from agent.scope import last_asked
from agent.served import ServedModel
from agent.uncertainty import mean_entropy
from store.records import FinishReason, Interaction, TokenTrace


@dataclass(frozen=True, slots=True)
class Question:
    """What one turn answers: messages for the log, token ids for the model, and how to choose."""

    messages: tuple[Mapping[str, Any], ...]
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    prompt_logprobs: int | None = None
    grammar: str = ""

    @property
    def text(self) -> str:
        """What it is placed by."""
        return last_asked(self.messages)


@dataclass(slots=True)
class Turn:
    """A turn under way. Iterate `events()` of all turns that were started together, then `save()` each exactly once."""

    id: str
    principal: str
    question: Question
    served: ServedModel
    started_at: float
    started: float  # monotonic
    ticket: Ticket
    index: int = 0  # among the choices of one request
    prompt_tokens: tuple[Token, ...] = ()  # how likely the prompt was, where that was asked
    newest_at: float = 0.0  # monotonic time of the newest token
    tokens: list[Token] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    end: Finished | None = None
    is_cut: bool = False  # it took longer than an answer may

    @property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        return self.question.messages

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.question.prompt_ids

    @property
    def checkpoint_id(self) -> str:
        return self.served.checkpoint_id

    @property
    def reply(self) -> str:
        return "".join(self.pieces)

    @property
    def reason(self) -> FinishReason:
        return self.end.reason if self.end else FinishReason.DISCONNECT

    @property
    def uncertainty(self) -> float | None:
        return mean_entropy(self._traces())

    def take(self, event: Event) -> None:
        match event:
            case PromptRead():
                self.prompt_tokens = event.tokens
            case Token():
                self.tokens.append(event)
                self.pieces.append(event.text)
            case Finished():
                self.end = event
                self.pieces.append(event.text)

    def abandon(self) -> None:
        """The client went away: stop generating and remember it as that."""
        self.ticket.cancel()
        if self.end is None:
            self.end = Finished(FinishReason.DISCONNECT)

    def record(self) -> Interaction:
        return Interaction(
            id=self.id,
            conversation_id=conversation_id(self.principal, self.messages),
            created_at=self.started_at,
            principal=self.principal,
            checkpoint_id=self.checkpoint_id,
            messages=self.messages,
            reply=self.reply,
            finish_reason=self.reason,
            tokens=self._traces(),
            prompt_tokens=len(self.prompt_ids),
            latency_seconds=time.monotonic() - self.started,
            uncertainty=self.uncertainty,
            sampling=_settings(self.question.sampling),
        )

    def _traces(self) -> tuple[TokenTrace, ...]:
        return tuple(TokenTrace(token.id, token.logprob, token.entropy) for token in self.tokens)


def conversation_id(principal: str, messages: tuple[Mapping[str, Any], ...]) -> str:
    """Chat requests carry their whole history: the same beginning is the same conversation."""
    first = next((str(m["content"]) for m in messages if m["role"] == "user"), "")
    return hashlib.sha256(f"{principal}\x1f{first}".encode()).hexdigest()[:32]


def _settings(sampling: Sampling) -> dict[str, Any]:
    """What was asked of the choice of tokens: the usual four, and the others where they are set."""
    unset = Sampling()
    others = ("top_k", "min_p", "presence_penalty", "frequency_penalty", "logit_bias", "ignore_eos")
    set_ones = {name: getattr(sampling, name) for name in others if getattr(sampling, name) != getattr(unset, name)}
    usual = {name: getattr(sampling, name) for name in ("temperature", "top_p", "seed", "max_tokens")}
    return usual | set_ones
