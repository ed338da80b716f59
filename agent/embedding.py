"""Sentences to unit vectors, for novelty and for finding near questions. Knows nothing of where they are kept."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
TOGETHER = 32  # texts after which others get their turn


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
        parts = [self._embed(list(texts[start : start + TOGETHER])) for start in range(0, len(texts), TOGETHER)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def _embed(self, texts: list[str]) -> Vectors:
        with self._turn:
            vectors = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dim)

    def count(self, texts: Sequence[str]) -> int:
        with self._turn:
            return sum(len(ids) for ids in self._model.tokenizer(list(texts), truncation=True)["input_ids"])
