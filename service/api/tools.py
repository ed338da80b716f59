"""Tools and forms of answers: what the model is told of them, the grammar that holds it to them, and calls read back.

Conversations are written out in the way that Hermes models use, which any chat template carries: calls and their
results as tagged JSON in plain text.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agent import grammar
from agent.wordings import TOOL_RESPONSE
from service.api.errors import ApiError
from service.api.forms import NamedTool, Tool
from service.api.schemas import ChatRequest, Message

INTRODUCTION = (
    "You may call one of these functions to help with the question:\n<tools>\n{tools}\n</tools>\n"
    "To call one, answer with nothing but its name and arguments as JSON:\n"
    '<tool_call>{{"name": "…", "arguments": {{…}}}}</tool_call>'
)


def written_out(body: ChatRequest) -> tuple[Mapping[str, Any], ...]:
    """The conversation as roles and text."""
    messages = [plain(message) for message in body.messages]
    tools = offered(body)
    if not tools:
        return tuple(messages)
    told = INTRODUCTION.format(tools="\n".join(_describe(tool) for tool in tools))
    if messages[0]["role"] == "system":
        return ({"role": "system", "content": f"{messages[0]['content']}\n\n{told}"}, *messages[1:])
    return ({"role": "system", "content": told}, *messages)


def offered(body: ChatRequest) -> Sequence[Tool]:
    """The tools that may be called in this turn. 400 when the one that must be called is not among them."""
    if body.tools is None or body.tool_choice == "none":
        if body.tools is None and body.tool_choice not in (None, "none"):
            raise _refusal("tool_choice", "tool_choice needs tools")
        return ()
    names = [tool.function.name for tool in body.tools]
    if len(set(names)) < len(names):
        raise _refusal("tools", "tools: two functions have the same name")
    if isinstance(body.tool_choice, NamedTool):
        wanted = body.tool_choice.function.name
        if wanted not in names:
            raise _refusal("tool_choice", f"tool_choice: {wanted!r} is not among the tools")
        return [tool for tool in body.tools if tool.function.name == wanted]
    return body.tools


def form_of(body: ChatRequest) -> str:
    """The grammar of the answer; empty when it is free."""
    tools, wanted = offered(body), body.response_format
    if tools:
        if wanted is not None and wanted.type != "text":
            raise _refusal("response_format", "response_format and tools together are not supported; leave one out")
        schemas = {tool.function.name: tool.function.parameters or {"type": "object"} for tool in tools}
        is_required = body.tool_choice == "required" or isinstance(body.tool_choice, NamedTool)
        return grammar.tool_calls(schemas, is_required=is_required)
    if wanted is None or wanted.type == "text":
        return ""
    return grammar.json_schema(wanted.json_schema.schema_) if wanted.json_schema else grammar.json_object()


def calls_of(text: str, tools: Sequence[Tool]) -> tuple[str, list[dict[str, Any]]]:
    """What an answer says, and the calls it makes, in OpenAI's form."""
    said, calls = grammar.parse_calls(text, [tool.function.name for tool in tools])
    return said, [
        {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]


def plain(message: Message) -> dict[str, Any]:
    """One message as a chat template knows it: developers speak as the system, tools as the user."""
    content = message.text
    if message.role == "tool":
        return {"role": "user", "content": f"{TOOL_RESPONSE}{content}</tool_response>"}
    for call in message.tool_calls or ():
        said = f'{{"name": {json.dumps(call.function.name)}, "arguments": {call.function.arguments}}}'
        content += f"{grammar.CALL_BEGIN}{said}{grammar.CALL_END}"
    return {"role": "system" if message.role == "developer" else message.role, "content": content}


def _describe(tool: Tool) -> str:
    return json.dumps(tool.function.model_dump(exclude_none=True, exclude={"strict"}), ensure_ascii=False)


def _refusal(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")
