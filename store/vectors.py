"""Nearest neighbours over embeddings: a FAISS inner-product index, and beside it which row is whose.

A copy for speed: the rows are the truth, and the index is rebuilt from them whenever the two differ.
"""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from store.artifacts import sha256_file, write_file
from store.audit import canonical_json
from store.connection import sync_directory

Vectors = npt.NDArray[np.float32]
Rows: TypeAlias = Callable[[], Iterable[tuple[Sequence[str], Vectors]]]

FLAT_ROWS = 50_000  # fewer are compared one by one, exactly
GROWTH = 4  # the lists are made anew once there are so many times the rows they were made for
ROWS_A_LIST = 64  # of the sample that the lists are learnt from
NUM_PROBES = 48  # lists looked into for a query
SEED = 1234
FORMAT = 2
MAX_MAP_BYTES = 4096
UNSAVED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class _Saved:
    index: Any
    num_rows: int
    digest: bytes
    trained_rows: int


@dataclass(slots=True)
class _Content:
    """An index, which row is whose, and the digest over both."""

    index: Any
    trained_rows: int = 0  # how many there were when the lists were made; 0 of a flat index
    ids: list[str] = field(default_factory=list)
    digest: bytes = b""


class VectorIndex:
    """Exact up to `flat_rows` vectors; from there inverted lists (IVF, Jegou et al. 2011) with a byte a dimension."""

    def __init__(self, path: Path, dim: int, *, flat_rows: int = FLAT_ROWS) -> None:
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.path = path
        self.dim = dim
        self._flat_rows = flat_rows
        self._lock = threading.Lock()  # FAISS moves its memory when it grows; a search must not look on
        self._content = _Content(faiss.IndexFlatIP(dim))
        self._known: set[str] = set()
        self._saved_rows: int | None = None

    def __len__(self) -> int:
        return len(self._content.ids)

    @property
    def is_exact(self) -> bool:
        return self._content.trained_rows == 0

    @property
    def is_outgrown(self) -> bool:
        """Whether there are so many more rows than it was made for that it should be rebuilt from them."""
        return self._is_outgrown(self._content)

    @property
    def is_save_due(self) -> bool:
        """Rows added since the last save are read again from the truth at the next start: a few may wait."""
        return self._saved_rows is None or len(self) - self._saved_rows > UNSAVED_SHARE * len(self)

    def load_or_rebuild(self, rows: Rows) -> bool:
        """Takes the saved index if it holds just the first of these rows and adds the rest, else builds one from them.

        `rows` gives ids and (N, dim) float32 chunk by chunk, the same each time, and is read once to compare, once
        more to build. True when the index was built.
        """
        saved = self._load()
        content, sample = self._compare(rows(), saved)
        is_rebuilt = content.index is None or self._is_outgrown(content)
        if is_rebuilt:
            content = self._build(rows(), content, sample)
        with self._lock:
            self._content, self._known = content, set(content.ids)
            self._saved_rows = saved.num_rows if saved and not is_rebuilt else None
        return is_rebuilt

    def rebuild(self, rows: Rows) -> None:
        """From the rows alone, whatever is saved."""
        content, sample = self._compare(rows(), None)
        content = self._build(rows(), content, sample)
        with self._lock:
            self._content, self._known, self._saved_rows = content, set(content.ids), None

    def add(self, id: str, vector: Sequence[float] | Vectors) -> None:  # noqa: A002
        raw = np.asarray(vector, dtype=np.float32).reshape(1, -1)
        row = self._normalised(raw, 1)
        with self._lock:
            if id in self._known:
                raise ValueError(f"{id} is in the index already; rebuild it from the rows to change a vector")
            self._content.index.add(row)
            self._content.ids.append(id)
            self._content.digest = _chained(self._content.digest, [id], raw)
            self._known.add(id)

    def search(self, vector: Sequence[float] | Vectors, k: int) -> list[tuple[str, float]]:
        """Up to `k` ids with their cosine, nearest first."""
        row = self._normalised(np.asarray(vector, dtype=np.float32).reshape(1, -1), 1)
        with self._lock:
            ids = self._content.ids
            k = min(k, len(ids))
            if k < 1:
                return []
            cosines, places = self._content.index.search(row, k)
            found = zip(cosines[0], places[0], strict=True)
            return [(ids[place], float(cosine)) for cosine, place in found if place >= 0]

    def neighbours(self, vectors: Vectors, k: int) -> Vectors:
        """The cosines (N, k) of each vector's nearest rows, nearest first; NaN where there are not so many."""
        rows = self._normalised(vectors, len(vectors))
        found = np.full((len(rows), k), np.nan, dtype=np.float32)
        with self._lock:
            near = min(k, len(self._content.ids))
            if near and len(rows):
                cosines, places = self._content.index.search(rows, near)
                found[:, :near] = np.where(places >= 0, cosines, np.nan)
        return found

    def save(self) -> None:
        """The map goes last and holds the index's digest, so that two halves of different saves are noticed."""
        with self._lock:
            content = self._content
            sha256 = _write_index(content.index, self.path)
            map_ = {
                "format": FORMAT,
                "dim": self.dim,
                "rows": len(content.ids),
                "rows_digest": content.digest.hex(),
                "trained_rows": content.trained_rows,
                "sha256": sha256,
            }
            self._saved_rows = len(content.ids)
        write_file(self._map_path, canonical_json(map_))

    @property
    def _map_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def _load(self) -> _Saved | None:
        """The saved index, or None when it is missing, corrupt or of another form. FAISS parses no other bytes than
        those whose digest the map has; what parses and then does not fit is not taken either.
        """
        try:
            with self._map_path.open("rb") as file:
                map_ = json.loads(file.read(MAX_MAP_BYTES))
            saved_rows, trained_rows = (_count(map_[name]) for name in ("rows", "trained_rows"))
            digest = bytes.fromhex(map_["rows_digest"])
            if (map_["format"], map_["dim"], map_["sha256"]) != (FORMAT, self.dim, sha256_file(self.path)):
                return None
            index = faiss.read_index(str(self.path))
        except (OSError, ValueError, KeyError, TypeError, MemoryError, RuntimeError):  # the last: FAISS, and deep JSON
            return None
        is_ours = isinstance(index, faiss.IndexIVFScalarQuantizer if trained_rows else faiss.IndexFlat)
        if not is_ours or (index.d, index.ntotal) != (self.dim, saved_rows):
            return None
        return _Saved(index, saved_rows, digest, trained_rows)

    def _compare(self, chunks: Iterable[tuple[Sequence[str], Vectors]], saved: _Saved | None) -> tuple[_Content, Any]:
        """Reads all rows: their ids and digest, the saved index brought up to them (None if it is of others), and an
        even sample of them (Vitter 1985, algorithm R).
        """
        content = _Content(saved.index if saved else None, saved.trained_rows if saved else 0)
        sample, draw = _Sample(self.dim), np.random.default_rng(SEED)
        is_same = saved is not None and saved.num_rows == 0
        for ids, raw in chunks:
            rows = self._normalised(raw, len(ids))
            head = max(0, saved.num_rows - len(content.ids)) if saved else 0
            if saved and 0 < head <= len(ids):
                is_same = _chained(content.digest, ids[:head], raw[:head]) == saved.digest
            if is_same and head < len(ids):
                content.index.add(rows[head:])
            content.digest = _chained(content.digest, ids, raw)
            content.ids.extend(ids)
            sample.take(rows, draw)
        if not is_same:
            content.index, content.trained_rows = None, 0
        return content, sample.rows

    def _build(self, chunks: Iterable[tuple[Sequence[str], Vectors]], read: _Content, sample: Vectors) -> _Content:
        count = len(read.ids)
        is_flat = count < self._flat_rows
        index = faiss.IndexFlatIP(self.dim) if is_flat else _trained(self.dim, count, sample)
        for ids, raw in chunks:
            index.add(self._normalised(raw, len(ids)))
        if index.ntotal != count:
            raise ValueError(f"the rows changed from {count} to {index.ntotal} while they were read; read them again")
        return _Content(index, 0 if is_flat else count, read.ids, read.digest)

    def _is_outgrown(self, content: _Content) -> bool:
        return len(content.ids) >= max(self._flat_rows, GROWTH * content.trained_rows)

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


class _Sample:
    """At most as many rows as the lists of the largest index are learnt from."""

    SIZE = 65_536

    def __init__(self, dim: int) -> None:
        self.rows: Vectors = np.empty((0, dim), dtype=np.float32)
        self._num_seen = 0

    def take(self, rows: Vectors, draw: np.random.Generator) -> None:
        free = self.SIZE - len(self.rows)
        if free > 0:
            self.rows = np.concatenate([self.rows, rows[:free]])
        rest = rows[max(free, 0) :]
        seen = self._num_seen + len(rows) - len(rest)
        places = draw.integers(0, np.arange(seen + 1, seen + len(rest) + 1))
        kept = places < self.SIZE
        self.rows[places[kept]] = rest[kept]
        self._num_seen += len(rows)


def _trained(dim: int, count: int, sample: Vectors) -> Any:
    """Near √count lists, a power of two, learnt by k-means from a sample of the rows."""
    num_lists = min(2 ** round(np.log2(count) / 2), max(1, len(sample) // ROWS_A_LIST))
    index: Any = faiss.index_factory(dim, f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter, index.cp.spherical = SEED, 10, True
    index.nprobe = NUM_PROBES
    index.train(np.random.default_rng(SEED).permutation(sample)[: num_lists * ROWS_A_LIST])
    return index


def _chained(digest: bytes, ids: Sequence[str], vectors: Vectors) -> bytes:
    """The digest after these rows; each is hashed with what came before, so that order and number count too."""
    raw = np.ascontiguousarray(vectors, dtype="<f4")
    for id_, row in zip(ids, raw, strict=True):
        digest = hashlib.blake2b(b"".join((digest, id_.encode(), b"\0", row.tobytes())), digest_size=16).digest()
    return digest


def _write_index(index: Any, path: Path) -> str:
    """Appears whole or not at all, and never as a second copy in memory. Returns its digest."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        faiss.write_index(index, name)
        os.fsync(descriptor)
        sha256 = sha256_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync_directory(path.parent)
    return sha256


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a count must be a whole number, got {value!r}")
    return value
