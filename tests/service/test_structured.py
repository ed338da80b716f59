"""Answers in a form: JSON objects, schemas, tool calls. A random model must follow them as a good one would."""

import json

import openai
import pytest

from tests.service.conftest import Desk, post, served

ASK = [{"role": "user", "content": "Who?"}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["Paris", "Rome"]}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def schema_format(schema) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}


def message(desk: Desk, **options):
    return desk.ask("Who?", max_tokens=400, **options)["choices"][0]


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_schema_is_followed_to_the_letter(shared_desk, temperature):
    for seed in range(3):
        choice = message(shared_desk, response_format=schema_format(SCHEMA), temperature=temperature, seed=seed)
        value = json.loads(choice["message"]["content"])
        assert choice["finish_reason"] == "stop"
        assert set(value) == {"name", "age"}
        assert isinstance(value["age"], int) and 0 <= value["age"] <= 99
        assert len(value["name"]) <= 8


def test_a_choice_among_strings_is_one_of_them(shared_desk):
    wanted = schema_format({"enum": ["red", "green"]})
    assert json.loads(message(shared_desk, response_format=wanted)["message"]["content"]) in ("red", "green")


def test_a_json_object_is_one_when_it_ends(shared_desk):
    answer = shared_desk.ask("Who?", max_tokens=300, response_format={"type": "json_object"}, temperature=1, seed=5)
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    assert text.startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)


def test_text_is_as_free_as_without_a_form(shared_desk):
    assert message(shared_desk, response_format={"type": "text"})["message"] == message(shared_desk)["message"]


def test_logprobs_stay_those_of_the_model_itself(shared_desk):
    choice = message(shared_desk, response_format=schema_format({"const": "zzz"}), logprobs=True)
    assert choice["message"]["content"] == '"zzz"'
    assert min(token["logprob"] for token in choice["logprobs"]["content"]) < -1, "forced tokens are not likely ones"


@pytest.mark.parametrize("wanted", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_that_must_be_called_is_called_with_arguments_that_fit(shared_desk, wanted):
    choice = message(shared_desk, tools=[WEATHER], tool_choice=wanted)
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["place"] in ("Paris", "Rome")
    assert choice["message"]["content"] is None


def test_the_named_tool_is_called_and_no_other(shared_desk):
    named = {"type": "function", "function": {"name": "clock"}}
    (call,) = message(shared_desk, tools=[WEATHER, CLOCK], tool_choice=named)["message"]["tool_calls"]
    assert call["function"]["name"] == "clock"


def test_with_auto_the_answer_is_a_call_or_text(shared_desk):
    choice = shared_desk.ask("Who?", max_tokens=30, tools=[WEATHER])["choices"][0]
    has_calls = bool(choice["message"].get("tool_calls"))
    assert has_calls or choice["message"]["content"]
    assert (choice["finish_reason"] == "tool_calls") == has_calls


def test_with_none_the_tools_are_not_even_mentioned(shared_desk):
    assert message(shared_desk, tools=[WEATHER], tool_choice="none")["message"] == message(shared_desk)["message"]


def test_the_openai_client_goes_through_a_tool_and_back(shared_desk):
    with served(shared_desk.apps[0]) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        asked = {"model": shared_desk.model, "tools": [WEATHER], "max_tokens": 400, "temperature": 0}
        first = client.chat.completions.create(messages=ASK, tool_choice="required", **asked).choices[0].message
        (call,) = first.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        again = [*ASK, first.model_dump(exclude_none=True, include={"role", "tool_calls"}), result]
        second = client.chat.completions.create(messages=again, tool_choice="none", **asked)
        chunks = list(client.chat.completions.create(messages=ASK, tool_choice="required", stream=True, **asked))
    assert second.choices[0].message.content
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    told = [delta.tool_calls for delta in deltas if delta.tool_calls]
    assert told[0][0].function.arguments == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(delta.content for delta in deltas)


def test_the_openai_client_parses_a_schema_into_its_class(shared_desk):
    import pydantic

    class Person(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        name: str = pydantic.Field(max_length=5)
        is_old: bool

    with served(shared_desk.apps[0]) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        reply = client.chat.completions.parse(
            model=shared_desk.model, messages=ASK, response_format=Person, temperature=0, max_tokens=300
        )
    assert isinstance(reply.choices[0].message.parsed, Person)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"name": "a", "schema": {}}}}, "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": schema_format({"type": "wibble"})}, "response_format"),
        ({"response_format": schema_format({"$ref": "#/nowhere"})}, "response_format"),
        ({"response_format": schema_format({"type": "string", "pattern": "("})}, "response_format"),
        ({"response_format": schema_format({"type": "object"}), "tools": [WEATHER]}, "response_format"),
        ({"tools": []}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": 3}}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [*ASK, {"role": "tool", "content": "x"}]}, "messages.1"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "y"}]}, "messages.0"),
    ],
)
def test_a_form_that_cannot_be_is_refused_by_name_and_hurts_nobody(shared_desk, body, param):
    response = shared_desk.chat({"messages": ASK, **body})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert shared_desk.ask()["choices"][0]["message"]["content"]


def test_a_schema_of_great_size_or_depth_is_refused_or_followed_but_never_a_fault(shared_desk):
    deep: dict = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "array", "items": deep, "minItems": 1, "maxItems": 1}
    wide = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(2000)}}
    huge = {"type": "string", "pattern": "(a{1,500}){1,500}"}
    for schema in (deep, wide, huge):
        body = {"model": shared_desk.model, "messages": ASK, "max_tokens": 3, "response_format": schema_format(schema)}
        assert post(shared_desk.public, "/v1/chat/completions", body).status_code in (200, 400, 503)
    assert shared_desk.daemon.rollout.serving.current.engine.fault() is None
