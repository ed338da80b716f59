"""Sentences to unit vectors."""

from pathlib import Path

import numpy as np
import pytest

from agent.embedding import SentenceEmbedder


@pytest.fixture(scope="module")
def embedder(tiny_embedder: Path) -> SentenceEmbedder:
    return SentenceEmbedder(tiny_embedder)


def test_every_text_becomes_a_unit_vector_of_the_models_width(embedder: SentenceEmbedder) -> None:
    vectors = embedder.embed(["one", "two words", "ein drittes"])
    assert vectors.shape == (3, embedder.dim) == (3, 16)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_texts_become_no_vectors(embedder: SentenceEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 16)


def test_a_text_has_the_same_vector_alone_and_among_others(embedder: SentenceEmbedder) -> None:
    together = embedder.embed(["one", "a much longer text than the other one"])
    assert np.allclose(embedder.embed(["one"])[0], together[0], atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-3)
