"""Nearest neighbours over embeddings: a FAISS inner-product index, and beside it which row is whose.

A copy for speed: the rows are the truth, and the index is rebuilt from them whenever the two differ.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.artifacts import write_file
from store.audit import canonical_json

Vectors = npt.NDArray[np.float32]


class VectorIndex:
    def __init__(self, path: Path, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.path = path
        self.dim = dim
        self._lock = threading.Lock()  # FAISS moves its memory when it grows; a search must not look on
        self._index: Any = faiss.IndexFlatIP(dim)
        self._ids: list[str] = []
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def load_or_rebuild(self, ids: Sequence[str], vectors: Vectors) -> bool:
        """Takes the saved index if it holds just these rows, else builds one from them. True when it was built."""
        rows = self._normalised(vectors, len(ids))
        index = self._load(list(ids))
        is_rebuilt = index is None or not np.allclose(index.reconstruct_n(0, len(ids)), rows, atol=1e-6)
        if is_rebuilt:
            index = faiss.IndexFlatIP(self.dim)
            index.add(rows)
        with self._lock:
            self._index, self._ids, self._known = index, list(ids), set(ids)
        return is_rebuilt

    def add(self, id: str, vector: Sequence[float] | Vectors) -> None:  # noqa: A002
        row = self._normalised(np.asarray(vector, dtype=np.float32).reshape(1, -1), 1)
        with self._lock:
            if id in self._known:
                raise ValueError(f"{id} is in the index already; rebuild it from the rows to change a vector")
            self._index.add(row)
            self._ids.append(id)
            self._known.add(id)

    def search(self, vector: Sequence[float] | Vectors, k: int) -> list[tuple[str, float]]:
        """Up to `k` ids with their cosine, nearest first."""
        row = self._normalised(np.asarray(vector, dtype=np.float32).reshape(1, -1), 1)
        with self._lock:
            k = min(k, len(self._ids))
            if k < 1:
                return []
            cosines, places = self._index.search(row, k)
            return [(self._ids[place], float(cosine)) for cosine, place in zip(cosines[0], places[0], strict=True)]

    def save(self) -> None:
        """The map goes last and holds the index's digest, so that two halves of different saves are noticed."""
        with self._lock:
            data = bytes(faiss.serialize_index(self._index))
            ids = list(self._ids)
        write_file(self.path, data)
        map_ = {"format": 1, "dim": self.dim, "ids": ids, "sha256": hashlib.sha256(data).hexdigest()}
        write_file(self._map_path, canonical_json(map_))

    @property
    def _map_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def _load(self, ids: list[str]) -> Any | None:
        """The saved index, or None when it is missing, corrupt or of other rows."""
        try:
            map_ = json.loads(self._map_path.read_bytes())
            data = self.path.read_bytes()
        except (OSError, ValueError):
            return None
        expected = {"format": 1, "dim": self.dim, "ids": ids, "sha256": hashlib.sha256(data).hexdigest()}
        if map_ != expected:  # FAISS only ever parses bytes that this class wrote
            return None
        return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))

    def _normalised(self, vectors: Vectors, count: int) -> Vectors:
        if count == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        rows = np.array(vectors, dtype=np.float32, order="C")
        if rows.shape != (count, self.dim):
            raise ValueError(f"vectors must be of shape {(count, self.dim)}, got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("vectors must be finite; one holds NaN or infinity")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0), dtype=np.float32)
