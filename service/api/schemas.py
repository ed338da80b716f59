"""What a request may say. Strict types, bounded sizes;
what would change the answer and is unknown is refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from store.records import Rating

MAX_MESSAGES = 1024
MAX_TEXT = 200_000
MAX_STOPS = 4


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Message(Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=MAX_TEXT)]
    name: str | None = None


class StreamOptions(Strict):
    include_usage: bool = False


StopString = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ChatRequest(Strict):
    """POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: Literal[1] | None = None
    # Inert here: accepted because clients send them, and they change no answer.
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class FeedbackRequest(Strict):
    """POST /v1/feedback."""

    interaction_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    rating: Annotated[Rating, Field(strict=False)] | None = None
    correction: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    comment: Annotated[str, StringConstraints(max_length=20_000)] | None = None


class LabelAnswer(Strict):
    """An answer to a question of the label queue."""

    action: Literal["answer", "right", "skip", "exclude"]
    correction: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None


class Reason(Strict):
    """Why an operator acts."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]


class Envelope(Strict):
    """A signed DSSE envelope."""

    envelope: dict[str, Any]
