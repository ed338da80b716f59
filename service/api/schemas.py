"""What a request may say. Strict types, bounded sizes;
what would change the answer and is unknown is refused by name.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from service.api.forms import (
    MAX_CALLS,
    MAX_PARTS,
    MAX_TEXT,
    Content,
    NamedTool,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
)
from service.api.strict import Strict
from store.comparisons import Choice
from store.records import Rating

MAX_MESSAGES = 1024
MAX_STOPS = 4
MAX_CHOICES = 8
MAX_PROMPTS = 32
MAX_INPUTS = 256


class Message(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Annotated[str, StringConstraints(max_length=64)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing; only an assistant's message with tool_calls may leave it out")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of role {self.role!r} cannot hold tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id belongs to messages of role 'tool', and to all of them")
        return self

    @property
    def text(self) -> str:
        """What it says, its parts one after the other."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Strict):
    include_usage: bool = False


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


StopString = Annotated[str, StringConstraints(min_length=1, max_length=64)]


Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]


class SamplingFields(Strict):
    """How to choose tokens: OpenAI's fields, and of vLLM's top_k, min_p and ignore_eos."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[StopString], Field(max_length=MAX_STOPS), BeforeValidator(_as_list)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    # Inert here: accepted because clients send them, and they change no answer.
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(self.stop or ())


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_CALLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    # Inert here, as above: there is never more than one call.
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_TEXT)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


def _prompts(value: Any) -> list[str | list[int]]:
    """OpenAI's four forms as one: texts or lists of token ids, one entry a prompt."""
    one = isinstance(value, str) or (isinstance(value, list) and value and _is_id(value[0]))
    prompts = [value] if one else value
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= MAX_PROMPTS:
        raise ValueError(f"send text or token ids, or a list of 1 to {MAX_PROMPTS} of them")
    for prompt in prompts:
        is_text = isinstance(prompt, str) and len(prompt) <= MAX_TEXT
        is_ids = isinstance(prompt, list) and 0 < len(prompt) <= MAX_TEXT and all(map(_is_id, prompt))
        if not (is_text or is_ids):
            raise ValueError("each prompt is text, or a list of token ids that is not empty")
    return prompts


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
PROMPTS_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        IDS_SCHEMA,
        {"type": "array", "items": {"anyOf": [{"type": "string"}, IDS_SCHEMA]}, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    model: str
    prompt: Annotated[list[str | list[int]], PlainValidator(_prompts), WithJsonSchema(PROMPTS_SCHEMA)]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False


class EmbeddingsRequest(Strict):
    """POST /v1/embeddings."""

    model: str
    input: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(_as_list),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    # Inert here, as above.
    user: str | None = None


class TokenizeRequest(Strict):
    """POST /tokenize: plain text, or a conversation as the model would read it."""

    model: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either prompt or messages")
        return self


class DetokenizeRequest(Strict):
    """POST /detokenize."""

    model: str | None = None
    tokens: TokenIds


class FeedbackRequest(Strict):
    """POST /v1/feedback: a word on one answer; or, with `other_id` and `better`, which of two answers is better."""

    interaction_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    rating: Annotated[Rating, Field(strict=False)] | None = None
    correction: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    comment: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    document: Annotated[str, StringConstraints(min_length=1, max_length=2_000)] | None = None
    other_id: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    better: Annotated[Choice, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _one_or_two_answers(self) -> Self:
        if (self.other_id is None) != (self.better is None):
            raise ValueError("other_id and better belong together")
        others = (self.rating, self.correction, self.comment, self.document)
        if self.better is not None and any(other is not None for other in others):
            raise ValueError("better takes no rating, correction, comment or document; give them by themselves")
        return self


class LabelAnswer(Strict):
    """An answer to a question of the label queue."""

    action: Literal["answer", "right", "wrong", "document", "skip", "exclude", "first", "second", "neither", "unknown"]
    correction: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    document: Annotated[str, StringConstraints(min_length=1, max_length=2_000)] | None = None


class NewKey(Strict):
    """Who is to have a key."""

    principal: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Reason(Strict):
    """Why an operator acts."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]


class Envelope(Strict):
    """A signed DSSE envelope."""

    envelope: dict[str, Any]
