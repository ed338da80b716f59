"""What a request may say of tools, calls and the form of an answer."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from service.api.strict import Strict

MAX_TEXT = 200_000
MAX_CALLS = 32
MAX_PARTS = 64

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Content = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class TextPart(Strict):
    """A part of a message; of the kinds that OpenAI knows only text is read here."""

    type: Literal["text"]
    text: Content


class CalledFunction(Strict):
    """The function of a call: its name, and its arguments as JSON text."""

    name: Name
    arguments: Content


class ToolCall(Strict):
    """A call that the model made earlier."""

    id: Annotated[str, StringConstraints(max_length=64)]
    type: Literal["function"] = "function"
    function: CalledFunction


class Function(Strict):
    """A function that the model may call. `strict` is always so here."""

    name: Name
    description: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """OpenAI's wrapping of a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    name: Name


class NamedTool(Strict):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Strict):
    """A named schema. `strict` is always so here."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)

    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to type 'json_schema', and must be there")
        return self
