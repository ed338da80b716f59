"""Our own OpenAPI document against ourselves: whatever it allows, and what it does not, no failure is ours.

A short run in `make test`; `make test-api` asks more than 2,000 cases (HONED_TEST_CASES of each kind an operation).
"""

import os
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation

from tests.service.conftest import Desk, MakeDaemon, served

CAN_BE_POSSIBLE = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize")
CASES = int(os.environ.get("HONED_TEST_CASES", "8"))


@pytest.fixture
def desk(make_daemon: MakeDaemon) -> Desk:
    """Short of breath, so that answers without a limit of their own are short too."""
    return Desk(make_daemon(max_context=400, default_max_tokens=4, max_waiting=4))


def make_possible(body: dict[str, Any], path: str, model: str) -> None:
    """What the document cannot say: which models there are, and that a conversation ends with a user's word."""
    if "model" in body:
        body["model"] = "all-MiniLM-L6-v2" if path == "/v1/embeddings" else model
    if path == "/v1/completions":
        body |= {"prompt": "Hi", "max_tokens": 2, "echo": False}
    if body.get("messages") and path == "/v1/chat/completions":
        said = [message for message in body["messages"] if isinstance(message.get("content"), str)]
        plain = [message for message in said if message.keys() == {"role", "content"} and message["role"] != "tool"]
        body["messages"] = [*plain, {"role": "user", "content": "Hi"}]


def answered(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, model: str) -> list[int]:
    """The statuses of so many cases of one kind. AssertionError with the request for one that is our failure."""
    statuses = []

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            make_possible(case.body, case.path, model)
        answer = case.call(timeout=60)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
        statuses.append(answer.status_code)

    ask()
    return statuses


@pytest.mark.timeout(1800)
def test_no_request_that_the_document_knows_or_forbids_is_a_failure_of_ours(desk: Desk) -> None:
    engine = desk.daemon.rollout.serving.current.engine
    answers: Counter[int] = Counter()
    with served(desk.apps[0]) as address:
        document = schemathesis.openapi.from_url(f"{address}/openapi.json")
        for result in document.get_all_operations():
            desk.daemon.rounds.look_after()  # no scheduler here, and readiness wants a token made lately
            operation = result.ok()
            can_be_wrong = "requestBody" in operation.definition.raw  # any text is a name in a path
            for mode in GenerationMode if can_be_wrong else [GenerationMode.POSITIVE]:
                statuses = answered(operation, mode, desk.model)
                answers.update(statuses)
                if mode is GenerationMode.POSITIVE and operation.path in CAN_BE_POSSIBLE:
                    assert 200 in statuses, operation.path
    print(f"{answers.total()} cases: {dict(answers)}")
    assert desk.daemon.rollout.serving.current.engine is engine
    assert engine.fault() is None
    assert desk.ask(max_tokens=2)["usage"]["completion_tokens"] == 2
