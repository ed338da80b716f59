"""Answers that must have a form: JSON, a JSON schema, a tool call. Which tokens may come next is llguidance's to say.

A grammar travels as text, so that an engine elsewhere can take it too.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

CACHE = 64  # compiled grammars kept
FORBIDDEN = -1e30
CALL_BEGIN, CALL_END = "<tool_call>", "</tool_call>"


class GrammarError(ValueError):
    """The form asked for cannot be compiled; the message says why."""


def json_object() -> str:
    """Any JSON object."""
    return json_schema({"type": "object"})


def json_schema(schema: Mapping[str, Any]) -> str:
    """JSON that this schema describes."""
    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema)))


def tool_calls(schemas: Mapping[str, Mapping[str, Any]], *, is_required: bool) -> str:
    """One call of one of these tools (name: schema of its arguments); when not required, plain text instead is fine."""
    calls = {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": schema},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for name, schema in schemas.items()
        ]
    }
    call = f'"{CALL_BEGIN}" %json {json.dumps(calls)} "{CALL_END}"'
    start = "call" if is_required else "call | text"
    text = r"text: /[^<](.|\n)*/" if not is_required else ""
    return str(LLMatcher.grammar_from_lark(f"start: {start}\ncall: {call}\n{text}\n"))


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._words = torch.empty((vocabulary_size + 31) // 32, dtype=torch.int32)

    def forbid(self, logits: torch.Tensor) -> None:
        """Make tokens (V,) that may not come next impossible, in place. The end is possible when the form is whole."""
        self._matcher.unsafe_compute_mask_ptr(self._words.data_ptr(), self._words.nbytes)
        bits = torch.arange(32, dtype=torch.int32)
        is_allowed = ((self._words[:, None] >> bits) & 1).bool().flatten()[: len(logits)]
        logits.masked_fill_(~is_allowed.to(logits.device), FORBIDDEN)

    def take(self, token_id: int) -> None:
        """This token was chosen."""
        self._matcher.consume_token(token_id)

    def fault(self) -> str | None:
        """Why the form cannot be followed any further."""
        return self._matcher.get_error() or None if self._matcher.is_error() else None


class Grammars:
    """Compiles grammars for one tokenizer, and keeps what it compiled. Thread-safe."""

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        self._source = tokenizer
        self._size = vocabulary_size
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def matcher(self, grammar: str) -> Matcher:
        """At the beginning of this grammar. GrammarError when it cannot be compiled. May take a second or two."""
        with self._lock:
            found = self._compiled.get(grammar)
            if found is None:
                found = self._compile(grammar)
                self._compiled[grammar] = found
                if len(self._compiled) > CACHE:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return Matcher(found.deep_copy(), self._size)

    def _compile(self, grammar: str) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = from_tokenizer(self._source, n_vocab=self._size)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError(str(matcher.get_error()).splitlines()[0])
        return matcher


def parse_calls(text: str, names: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """An answer as what is said and the calls in it (name, arguments as JSON). What is no whole call stays text."""
    said, calls, rest = [], [], text
    while CALL_BEGIN in rest:
        before, _, rest = rest.partition(CALL_BEGIN)
        said.append(before)
        found = _call(rest, names)
        if found is None:
            said.append(CALL_BEGIN)
        else:
            call, rest = found
            calls.append(call)
    said.append(rest)
    return "".join(said).strip() if calls else text, calls


def _call(text: str, names: Sequence[str]) -> tuple[tuple[str, str], str] | None:
    """The call that a text begins with, and what comes after its end. Tags inside its strings are no tags."""
    begun = text.lstrip()
    try:
        value, length = json.JSONDecoder().raw_decode(begun)
    except (ValueError, RecursionError):
        return None
    after = begun[length:].lstrip()
    if not isinstance(value, dict) or not after.startswith(CALL_END):
        return None
    if value.get("name") not in names or not isinstance(value.get("arguments"), dict):
        return None
    return (value["name"], json.dumps(value["arguments"], ensure_ascii=False)), after.removeprefix(CALL_END)
