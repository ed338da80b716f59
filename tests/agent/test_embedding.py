"""Sentences to unit vectors."""

from pathlib import Path

import numpy as np
import pytest

from agent.embedding import READ, TOGETHER, SentenceEmbedder


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


@pytest.mark.parametrize("texts", [["word " * 100] * 12, ["short"] * 100])
def test_many_texts_are_embedded_in_turns_that_others_need_not_wait_long_for(
    embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    turns: list[list[str]] = []
    embed = embedder._embed
    monkeypatch.setattr(embedder, "_embed", lambda some: turns.append(some) or embed(some))
    vectors = embedder.embed(texts)
    assert len(turns) > 1
    assert [text for some in turns for text in some] == texts
    assert max(sum(map(len, some)) for some in turns) <= READ
    assert max(map(len, turns)) <= TOGETHER
    assert np.allclose(vectors, vectors[0], atol=1e-4)


def test_a_text_longer_than_a_turn_has_one_of_its_own(embedder: SentenceEmbedder) -> None:
    assert embedder.embed(["a", "word " * READ, "b"]).shape == (3, 16)
