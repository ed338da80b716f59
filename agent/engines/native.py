"""The fast runner on CPUs: Llama-family models through the kernels, bfloat16 or int8 weights and float32 sums.

A row's result has the same bits alone, in any batch, however its prompt was cut up, and with whatever of it was found
in the cache.
"""

import ctypes
import threading
from array import array
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy
import torch

from agent.engines.runner import BLOCK, Choice, Figures, Next, Piece
from agent.kernels import abi
from agent.kernels.weights import PANEL, PackedLayer, PackedMatrix, PackedModel


class NativeRunner:
    """Runs packed weights over a paged cache, on `threads` threads of its own.

    Runners on the same cores share a `turn`: steps of two would wait for each other's threads at every barrier, and
    one after the other both are done sooner.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        weights: PackedModel,
        *,
        num_blocks: int,
        threads: int,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self._turn = turn or threading.Lock()
        self._library = library
        self._weights = weights
        self.vocabulary_size, hidden = weights.embedding.shape
        self._width = weights.head.values.shape[0] * PANEL
        words = num_blocks * weights.kv_heads * weights.head_dim * BLOCK // 2
        # numpy's zeros, not torch's: their pages are not resident until they are used
        self._cache = [torch.from_numpy(numpy.zeros((2, words), dtype=numpy.int32)) for _ in weights.layers]
        self._layers = (abi.Layer * len(weights.layers))(*map(_layer, weights.layers, self._cache))
        self._logits = torch.empty((0, self._width))
        numbers = (hidden, weights.heads, weights.kv_heads, weights.head_dim, weights.inner, self.vocabulary_size)
        tensors = (weights.norm, weights.cosine, weights.sine)
        model = abi.Model(
            len(weights.layers),
            *numbers,
            weights.epsilon,
            self._layers,
            weights.embedding.data_ptr(),
            _matrix(weights.head),
            *map(_address, tensors),
        )
        self._decoder: int | None = library.decoder_new(ctypes.byref(model), threads)

    def run(self, pieces: Sequence[Piece]) -> Next:
        if self._decoder is None:
            raise RuntimeError("this runner is closed")
        ids = array("i", (token for piece in pieces for token in piece.ids))
        self._require_known(ids, pieces)
        tables = [array("i", piece.blocks) for piece in pieces]
        chunks = (abi.Chunk * len(pieces))()
        wanted, row = array("i"), 0
        for chunk, piece, table in zip(chunks, pieces, tables, strict=True):
            chunk.first_row, chunk.num_rows, chunk.position = row, len(piece.ids), piece.position
            chunk.blocks = table.buffer_info()[0]
            row += len(piece.ids)
            wanted.extend(range(row - piece.num_wanted, row))
        with self._turn:
            self._library.decoder_forward(self._decoder, ids.buffer_info()[0], len(ids), chunks, len(pieces))
            return self._next(wanted)

    def choose(self, rows: Sequence[torch.Tensor], choices: Sequence[Choice]) -> list[int]:
        count = len(rows)
        logits = array("Q", (row.data_ptr() for row in rows))
        settings = (abi.Choice * count)(
            *(abi.Choice(c.temperature, c.top_p, c.min_p, c.top_k, c.uniform) for c in choices)
        )
        chosen = (ctypes.c_int32 * count)()
        with self._turn:
            self._library.decoder_choose(self._decoder, logits.buffer_info()[0], settings, count, chosen)
        return list(chosen)

    def use_threads(self, count: int) -> None:
        if self._decoder is not None:
            self._library.decoder_use_threads(self._decoder, count)

    def close(self) -> None:
        if self._decoder is not None:
            self._library.decoder_delete(self._decoder)
            self._decoder, self._cache = None, []

    def _next(self, wanted: "array[int]") -> Next:
        """Logits and figures after the wanted rows."""
        count = len(wanted)
        if len(self._logits) < count:
            self._logits = torch.empty((count, self._width))
        told = (abi.Figures * count)()
        if count:
            self._library.decoder_head(self._decoder, wanted.buffer_info()[0], count, self._logits.data_ptr(), told)
        figures = [Figures(f.best, f.margin, f.entropy, f.log_total) for f in told]
        return Next(self._logits[:count, : self.vocabulary_size], figures)

    def _require_known(self, ids: "array[int]", pieces: Sequence[Piece]) -> None:
        """The kernels read memory by token and position: what lies outside it never reaches them."""
        if min(ids) < 0 or max(ids) >= self.vocabulary_size:
            raise IndexError(f"a token id is outside the vocabulary of {self.vocabulary_size}")
        last = max(piece.position + len(piece.ids) for piece in pieces)
        if last > self._weights.cosine.shape[0]:
            raise IndexError(f"position {last} is beyond the {self._weights.cosine.shape[0]} prepared")


def _layer(weights: PackedLayer, cache: torch.Tensor) -> abi.Layer:
    w = weights
    matrices = map(_matrix, (w.qkv, w.out, w.gate_up, w.down))
    vectors = (w.norm_in, w.norm_post, w.bias, w.norm_query, w.norm_key, cache[0], cache[1])
    return abi.Layer(*matrices, *map(_address, vectors))


def _matrix(packed: PackedMatrix) -> abi.Matrix:
    return abi.Matrix(_address(packed.values), _address(packed.scales))


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
