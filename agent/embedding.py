"""Sentences to unit vectors, for novelty and for finding near questions. Knows nothing of where they are kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
TOGETHER = 32  # texts, and
READ = 2000  # characters, after which others get their turn: a request may wait behind the background's


class EmbedderError(RuntimeError):
    """The embedder cannot be had; the message says why."""


class Embedder(Protocol):
    """Maps texts to unit-length float32 vectors (N, dim)."""

    dim: int

    def embed(self, texts: Sequence[str]) -> Vectors: ...

    def count(self, texts: Sequence[str]) -> int:
        """Tokens in all of them, as far as the model reads."""


class NamedEmbedder(Protocol):
    """Which embedder it is, and itself, loaded when it is first asked for."""

    @property
    def id(self) -> str: ...

    def __call__(self) -> Embedder:
        """EmbedderError when it does not load."""


class SentenceEmbedder:
    """A sentence-transformers model in a verified local directory, on the CPU. Thread-safe: its tokenizer is not, so
    callers take turns.
    """

    def __init__(self, directory: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
        self._turn = Lock()
        self.dim = int(self._model.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Vectors:
        parts = [self._embed(some) for some in _turns(texts)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def _embed(self, texts: list[str]) -> Vectors:
        with self._turn:
            vectors = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dim)

    def count(self, texts: Sequence[str]) -> int:
        with self._turn:
            return sum(len(ids) for ids in self._model.tokenizer(list(texts), truncation=True)["input_ids"])


def _turns(texts: Sequence[str]) -> Iterator[list[str]]:
    """What is embedded in one turn: a few texts, one at least."""
    some: list[str] = []
    for text in texts:
        if some and (len(some) == TOGETHER or sum(map(len, some)) + len(text) > READ):
            yield some
            some = []
        some.append(text)
    if some:
        yield some
