"""Texts to vectors over the API."""

import numpy as np
import openai
import pytest

from tests.service.conftest import post, served

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
