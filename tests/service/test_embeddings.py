"""Texts to vectors over the API: whose they are, who waits for them, and who does not."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from agent.embedding import EmbedderError
from tests.fakes import WordEmbedder
from tests.service.conftest import Desk, post, served, wait_until

NAME = "all-MiniLM-L6-v2"


def embed(desk, **body):
    return post(desk.public, "/v1/embeddings", {"model": NAME, "input": "Hi"} | body)


def test_the_openai_client_gets_the_embedders_own_vectors(shared_desk):
    texts = ["a red boat", "something else"]
    with served(shared_desk.apps[0]) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        reply = client.embeddings.create(model=NAME, input=texts)  # asks for base64
    expected = shared_desk.daemon.sentence_embedder().embed(texts)
    assert [item.index for item in reply.data] == [0, 1]
    assert np.allclose([item.embedding for item in reply.data], expected, atol=1e-6)
    assert reply.usage.total_tokens > 0


def test_numbers_and_bytes_are_the_same_vector_of_length_one(shared_desk):
    vector = np.array(embed(shared_desk).json()["data"][0]["embedding"])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert len(vector) == shared_desk.daemon.sentence_embedder().dim
    assert isinstance(embed(shared_desk, encoding_format="base64").json()["data"][0]["embedding"], str)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": ""}, 400, "input.0"),
        ({"input": []}, 400, "input"),
        ({"input": ["a"] * 257}, 400, "input"),
        ({"input": [1, 2]}, 400, "input.0"),
        ({"input": None}, 400, "input"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
        ({"dimensions": 3}, 400, "dimensions"),
        ({"model": "gpt-5"}, 404, "model"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(shared_desk, body, status, param):
    response = embed(shared_desk, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


class Held(WordEmbedder):
    """Embeds when it is let."""

    def __init__(self) -> None:
        self.is_let = threading.Event()
        self.num_asked = 0

    def embed(self, texts):
        self.num_asked += 1
        assert self.is_let.wait(20)
        return super().embed(texts)


def test_those_who_wait_for_the_embedder_are_bounded_and_hold_up_nobody_else(make_daemon):
    daemon, held = make_daemon(max_waiting=50), Held()
    daemon.sentence_embedder = lambda: held
    body = {"model": NAME, "input": "Hi"}
    with served(Desk(daemon).apps[0]) as url, ThreadPoolExecutor(52) as crowd, httpx.Client(base_url=url) as client:
        try:
            asked = [crowd.submit(httpx.post, f"{url}/v1/embeddings", json=body, timeout=60) for _ in range(52)]
            refused = wait_until(lambda: next((one for one in asked if one.done()), None)).result()
            assert client.get("/health/live", timeout=5).status_code == 200
        finally:
            held.is_let.set()
        answers = [one.result() for one in asked]
        assert client.post("/v1/embeddings", json=body).status_code == 200
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error"]["code"] == "queue_full"
    assert sorted(answer.status_code for answer in answers) == [200] * 51 + [429]
    assert held.num_asked == 52


def test_an_embedder_that_does_not_load_is_said_so(make_daemon):
    def broken():
        raise EmbedderError("the embedder mini does not load: no such file")

    daemon = make_daemon()
    daemon.sentence_embedder = broken
    response = embed(Desk(daemon))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json()["error"]["code"] == "embedder_failed"
    assert "no such file" in response.json()["error"]["message"]
