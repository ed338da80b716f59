"""Sentences to unit vectors, for novelty and for finding near questions. Knows nothing of where they are kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Maps texts to unit-length float32 vectors (N, dim)."""

    dim: int

    def embed(self, texts: Sequence[str]) -> Vectors: ...

    def count(self, texts: Sequence[str]) -> int:
        """Tokens in all of them, as far as the model reads."""


class SentenceEmbedder:
    """A sentence-transformers model in a verified local directory, on the CPU."""

    def __init__(self, directory: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
        self.dim = int(self._model.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dim)

    def count(self, texts: Sequence[str]) -> int:
        return sum(len(ids) for ids in self._model.tokenizer(list(texts), truncation=True)["input_ids"])
