"""What clients send by mistake or with intent: each a 4xx in the one error shape that names the field."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.conftest import Desk, post

HI = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"
MEBIBYTE = 1 << 20


def refused(response: Any, status: int, param: str | None, code: str | None = None) -> dict[str, Any]:
    """The error of a response, after its shape was looked at."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert error["param"] == param or error["param"].startswith(f"{param}.")
    if param is not None:
        assert param.split(".")[0] in error["message"]
    if code is not None:
        assert error["code"] == code
    return error


@pytest.fixture(autouse=True)
def _still_answers(shared_desk: Desk) -> Iterator[None]:
    yield
    assert shared_desk.ask()["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_tokens", 2.5),
        ("max_tokens", "10"),
        ("max_tokens", True),
        ("max_completion_tokens", -3),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", -float("inf")),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", [1]),
        ("top_p", float("nan")),
        ("top_p", 0),
        ("top_p", 1.01),
        ("seed", 2**63),
        ("seed", 1.5),
        ("n", 9),
        ("n", 0),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("presence_penalty", "1"),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"1": None}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"one": 1}),
        ("logit_bias", {"99999999": 1}),
        ("logit_bias", []),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 1.1),
        ("ignore_eos", 1),
        ("stream", "yes"),
        ("stream_options", []),
        ("messages", []),
        ("messages", {}),
        ("messages", "Hi"),
        ("messages", None),
        ("logprobs", 1),
        ("top_logprobs", 21),
        ("top_logprobs", -1),
        ("user", 7),
        ("metadata", []),
        ("model", None),
        ("model", 3),
        ("model", ["tiny-llama"]),
        ("stop", ""),
        ("stop", 5),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", "x" * 65),
        ("stop", [None]),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(shared_desk, field, value):
    body = {"model": shared_desk.model, "messages": HI} | {field: value}
    refused(post(shared_desk.public, CHAT, body), 400, field, "invalid_value")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 400])
def test_a_number_past_what_a_float_holds_is_refused_by_name(shared_desk, number):
    body = json.dumps({"model": shared_desk.model, "messages": HI, "temperature": 0.5}).replace("0.5", number)
    refused(post(shared_desk.public, CHAT, body), 400, "temperature", "invalid_value")


def test_an_integer_of_ten_thousand_digits_is_refused(shared_desk):
    body = (
        f'{{"model": "{shared_desk.model}", "messages": [{{"role": "user", "content": "Hi"}}], "seed": {"9" * 10_000}}}'
    )
    assert post(shared_desk.public, CHAT, body).status_code == 400


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "user"}, "messages.0"),
        ({"content": "Hi"}, "messages.0.role"),
        ({"role": "user", "content": None}, "messages.0"),
        ({"role": "user", "content": 5}, "messages.0.content"),
        ({"role": "user", "content": []}, "messages.0.content"),
        ({"role": "user", "content": [{"type": "image_url", "text": "x"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages.0.content.0.text"),
        ({"role": "tool", "content": "Hi"}, "messages.0"),
        ({"role": "USER", "content": "Hi"}, "messages.0.role"),
        ({"role": "user", "content": "x" * 200_001}, "messages.0.content"),
        ("Hi", "messages.0"),
        (None, "messages.0"),
    ],
)
def test_a_message_that_cannot_be_is_refused_by_its_place(shared_desk, message, where):
    refused(shared_desk.chat({"messages": [message]}), 400, where, "invalid_value")


@pytest.mark.parametrize(
    "unknown",
    [
        {"functions": []},
        {"repetition_penalty": 1.5},
        {"guided_json": {}},
        {"reasoning_effort": "low"},
        {"modalities": ["audio"]},
        {"wibble": 1},
        {"__class__": "x"},
    ],
)
def test_what_would_change_the_answer_and_is_not_done_here_is_refused_by_name(shared_desk, unknown):
    (name,) = unknown
    refused(shared_desk.chat({"messages": HI, **unknown}), 400, name, "unsupported_parameter")


def test_an_unknown_field_of_a_message_is_refused_by_its_place(shared_desk):
    body = {"messages": [{"role": "user", "content": "Hi", "audio": "x"}]}
    refused(shared_desk.chat(body), 400, "messages.0.audio", "unsupported_parameter")


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_field_that_must_be_there_is_named(shared_desk, missing):
    body = {"model": shared_desk.model, "messages": HI}
    del body[missing]
    refused(post(shared_desk.public, CHAT, body), 400, missing, "invalid_value")


@pytest.mark.parametrize("model", ["gpt-5", "", "tiny-llama ", "../tiny-llama", "x" * 5_000])
def test_an_unknown_model_is_not_found(shared_desk, model):
    refused(shared_desk.chat({"model": model, "messages": HI}), 404, "model", "model_not_found")


def test_the_last_message_must_be_the_users(shared_desk):
    body = {"messages": [*HI, {"role": "assistant", "content": "Hello"}]}
    refused(shared_desk.chat(body), 400, "messages", "invalid_value")


def test_top_logprobs_without_logprobs_are_refused(shared_desk):
    refused(shared_desk.chat({"messages": HI, "top_logprobs": 2}), 400, "top_logprobs", "invalid_value")


def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(shared_desk):
    body = {"messages": [{"role": "user", "content": "x" * 2_000}]}
    error = refused(shared_desk.chat(body), 400, "messages", "context_length_exceeded")
    assert "2019 tokens" in error["message"]
    assert "1024" in error["message"]


@pytest.mark.parametrize("length", [1_003, 1_004, 1_005, 1_006])
def test_at_the_edge_of_the_context_there_is_an_answer_or_a_clear_no(shared_desk, length):
    response = shared_desk.chat({"messages": [{"role": "user", "content": "x" * length}]})
    if length < 1_005:
        assert response.json()["usage"]["total_tokens"] == 1024
    else:
        refused(response, 400, "messages", "context_length_exceeded")


def test_a_hundred_thousand_messages_are_too_large_a_body(shared_desk):
    refused(shared_desk.chat({"messages": HI * 100_000}), 413, "body", "body_too_large")


def test_more_messages_than_may_be_are_refused_by_name(shared_desk):
    refused(shared_desk.chat({"messages": HI * 1_025}), 400, "messages", "invalid_value")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b'"text"',
        b"null",
        b"17",
        b"\xff\xfe\x00",
        b'{"model": "\xff"}',
        b'{"model": "tiny-llama",}',
        b"[" * 100_000,
        b'{"messages":' * 5_000,
    ],
)
def test_a_body_that_is_no_json_object_is_refused(shared_desk, body):
    refused(post(shared_desk.public, CHAT, body), 400, None)


def test_a_form_is_not_json(shared_desk):
    response = shared_desk.public.post(CHAT, data={"model": shared_desk.model})
    refused(response, 400, None, "invalid_json")


# ── half surrogate pairs: JSON can spell them, nothing else can hold them ────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
        ({"messages": [*HI, {"role": "user", "content": "so \udfff it goes"}]}, "messages.1.content"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "\udc00"}]}, "messages.0.name"),
        ({"messages": HI, "user": "\ud800"}, "user"),
        ({"messages": HI, "model": "\ud800"}, "model"),
        ({"messages": HI, "metadata": {"a": {"b": ["\ud800"]}}}, "metadata"),
        ({"messages": HI, "metadata": {"\ud800": 1}}, "metadata"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_half_a_surrogate_pair_is_refused_by_name(shared_desk, body, where, is_stream):
    refused(shared_desk.chat({**body, "stream": is_stream}), 400, where, "invalid_value")


def test_half_a_surrogate_pair_in_a_stop_string_is_refused_by_name(shared_desk):
    for stop in ("\ud800", ["fine", "\ud800"]):
        refused(shared_desk.chat({"messages": HI, "stop": stop}), 400, "stop", "invalid_value")


def test_half_a_surrogate_pair_in_a_fields_name_can_be_answered(shared_desk):
    refused(shared_desk.chat({"messages": HI, "\ud800": 1}), 400, "a field whose name is not Unicode")


def test_a_whole_surrogate_pair_is_one_character(shared_desk):
    body = json.dumps({"model": shared_desk.model, "max_tokens": 2, "messages": [{"role": "user", "content": "😀"}]})
    assert "\\ud83d\\ude00" in body
    reply = post(shared_desk.public, CHAT, body)
    assert reply.status_code == 200
    found = shared_desk.daemon.stores.interactions.get(reply.json()["honed"]["interaction_id"])
    assert found.question == "😀"


@pytest.mark.parametrize("field", ["interaction_id", "correction", "comment"])
def test_half_a_surrogate_pair_in_feedback_is_refused_by_name(shared_desk, field):
    body = {"interaction_id": "x", "rating": "up"} | {field: "\ud800"}
    refused(post(shared_desk.public, "/v1/feedback", body), 400, field, "invalid_value")


def test_metadata_nested_as_deep_as_json_allows_is_no_trouble(shared_desk):
    metadata = json.loads('{"a":' * 600 + "1" + "}" * 600)
    assert shared_desk.chat({"messages": HI, "metadata": metadata}).status_code == 200


# ── the outer door ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:4663", "127.0.0.1.evil.example", "169.254.169.254", "10.0.0.1", "[", "[::2]", ""],
)
def test_a_foreign_host_is_refused(shared_desk, host):
    refused(shared_desk.public.get("/v1/models", headers={"Host": host}), 403, "host", "host_not_allowed")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:4663", "localhost", "LOCALHOST:1", "[::1]", "[::1]:4663"])
def test_every_name_of_this_machine_is_welcome(shared_desk, host):
    assert shared_desk.public.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://localhost", "http://[", "", "file://"]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/feedback"])
def test_a_foreign_origin_is_refused(shared_desk, origin, path):
    response = shared_desk.public.post(path, json={}, headers={"Origin": origin})
    refused(response, 403, "origin", "origin_not_allowed")


def test_the_pages_own_origin_is_welcome(shared_desk):
    assert shared_desk.public.get("/v1/models", headers={"Origin": "http://127.0.0.1"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health/live", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/", 405),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/app.js/..%2f..%2fdaemon.py", 404),
        ("GET", "/docs", 404),
        ("POST", "/v1/responses", 404),
        ("GET", "/operator/status", 404),
        ("POST", "/operator/decide", 404),
        ("POST", "/operator/rollback", 404),
        ("POST", "/operator/train", 404),
    ],
)
def test_what_is_not_there_is_told_so_and_operators_verbs_are_not_on_the_public_side(shared_desk, method, path, status):
    refused(shared_desk.public.request(method, path), status, None, "not_found" if status == 404 else None)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_ten_megabytes_are_refused_and_the_client_can_read_why(shared_address, is_chunked):
    piece = b" " * MEBIBYTE
    content = (piece for _ in range(10)) if is_chunked else piece * 10
    response = httpx.post(shared_address + CHAT, content=content, timeout=30)
    refused(response, 413, "body", "body_too_large")


def test_a_body_of_exactly_the_limit_is_read(shared_desk):
    text = json.dumps({"model": shared_desk.model, "messages": HI, "max_tokens": 2})
    assert post(shared_desk.public, CHAT, text + " " * (MEBIBYTE - len(text))).status_code == 200
    refused(post(shared_desk.public, CHAT, text + " " * (MEBIBYTE + 1 - len(text))), 413, "body", "body_too_large")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "interaction_id"),
        ({"interaction_id": ""}, "interaction_id"),
        ({"interaction_id": "x" * 65}, "interaction_id"),
        ({"interaction_id": 5, "rating": "up"}, "interaction_id"),
        ({"interaction_id": "x", "rating": "sideways"}, "rating"),
        ({"interaction_id": "x", "correction": ""}, "correction"),
        ({"interaction_id": "x", "correction": "y" * 20_001}, "correction"),
        ({"interaction_id": "x", "correction": 5}, "correction"),
    ],
)
def test_feedback_that_cannot_be_is_refused_by_name(shared_desk, body, param):
    refused(post(shared_desk.public, "/v1/feedback", body), 400, param, "invalid_value")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/operator/decide", {}, "envelope"),
        ("/operator/decide", {"envelope": "x"}, "envelope"),
        ("/operator/operators", {"envelope": []}, "envelope"),
        ("/operator/rollback", {}, "reason"),
        ("/operator/rollback", {"reason": ""}, "reason"),
        ("/operator/rollback", {"reason": "\ud800"}, "reason"),
        ("/operator/train", {"operator": 5}, "operator"),
        ("/operator/train", {"recipe": {"\ud800": 1}}, "recipe"),
        ("/operator/questions/x", {"action": "shrug"}, "action"),
    ],
)
def test_operators_requests_that_cannot_be_are_refused_by_name(shared_desk, path, body, param):
    refused(post(shared_desk.operator, path, body), 400, param, "invalid_value")
