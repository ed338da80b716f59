"""The model that answers: load beside, smoke-test, flip, drain.
Each request gets its answer from exactly one checkpoint.

Knows checkpoints as verified bytes and an id; whether one may serve was decided before it comes here.
"""

import ctypes
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.embedding import EmbedderError, NamedEmbedder
from agent.engine import EngineStats, GenerationRequest, Sampling, complete
from agent.engines.blocks import blocks_for
from agent.engines.embedded import EmbeddedEngine
from agent.engines.native import NativeRunner
from agent.engines.reference import ReferenceRunner
from agent.engines.runner import BLOCK, Runner
from agent.grammar import Grammars
from agent.kernels import build
from agent.kernels.weights import pack, why_not
from agent.model import Adapter, choose_device, choose_dtype, free_bytes, load_base, merge_adapter
from agent.scope import SCOPE_FILE, Scope, read_scope
from agent.served import Bounds, ServedModel
from agent.tokenizer import Tokenizer
from store.records import FinishReason

SMOKE_MESSAGES = ({"role": "user", "content": "Say hello."},)
SMOKE_TOKENS = 8


class LoadError(RuntimeError):
    """A checkpoint could not be brought to answer; the message says why."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine is built. `kernels`: where compiled kernels are kept; None does without them.
    `quantization`: "none", or "int8" for weights of one byte each, which only the kernels have.
    """

    device: str = "auto"
    dtype: str = "auto"
    quantization: str = "none"
    threads: int = 1
    max_batch: int = 8
    max_waiting: int = 64
    max_context: int = 4096
    cache_mb: int = 512
    kernels: Path | None = None


class ModelLoader:
    """Holds the base in memory and builds served models from it, with the fastest runner that this machine has.

    `directory` has the same `files` but for weights, for what reads only a directory; it may go afterwards.
    `slow_because` says why that is the reference runner on a CPU; None otherwise. Without an `embedder`, no adapter
    that has a scope loads.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        directory: Path,
        base_id: str,
        settings: EngineSettings,
        embedder: NamedEmbedder | None = None,
    ) -> None:
        self.base_id = base_id
        self._embedder = embedder
        self.device = choose_device(settings.device)
        self.tokenizer = Tokenizer(directory)
        self._settings = settings
        self._turn = threading.Lock()
        self._library, self.slow_because = self._kernels()
        self.dtype = torch.bfloat16 if self._library else choose_dtype(self.device, settings.dtype)
        self._base: PreTrainedModel = load_base(files, directory, self.device, self.dtype)
        reason = why_not(self._base)
        if self._library and reason:
            self._library, self.slow_because = None, reason
            self.dtype = choose_dtype(self.device, settings.dtype)
            self._base = load_base(files, directory, self.device, self.dtype)  # not widened: that would keep the loss
        self._require_quantization()
        self.grammars = Grammars(self.tokenizer.inner, self.vocabulary_size)
        if self._library:
            torch.set_num_threads(1)  # the kernels have threads of their own; what torch still does steps back
        self.max_context = min(settings.max_context, int(self._base.config.max_position_embeddings))

    @property
    def weights(self) -> str:
        """What serves in memory: int8, or the name of `dtype`."""
        return "int8" if self._settings.quantization == "int8" else str(self.dtype).removeprefix("torch.")

    @property
    def vocabulary_size(self) -> int:
        """Token ids go from 0 to one less."""
        return int(self._base.config.vocab_size)

    @property
    def num_blocks(self) -> int:
        """Blocks of key-value cache that the setting allows, and one context at least."""
        return max((self._settings.cache_mb << 20) // self._block_bytes, blocks_for(self.max_context + 1))

    @property
    def _block_bytes(self) -> int:
        c: Any = self._base.config
        head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
        block_bytes: int = 2 * c.num_hidden_layers * heads * head_dim * self.dtype.itemsize * BLOCK
        return block_bytes

    def build(
        self, checkpoint_id: str, adapter: Mapping[str, bytes] | None, base: ServedModel | None = None
    ) -> ServedModel:
        """A served model beside whatever serves now, smoke-tested. LoadError when it does not fit, load or answer.
        Outside an adapter's scope `base` answers, or a model of the base that is built with it.
        """
        scope = self._scope(checkpoint_id, adapter or {})
        served = self._build(checkpoint_id, adapter)
        if scope is None:
            return served
        try:
            elsewhere = base or self._build(self.base_id, None)
        except BaseException:  # also out of memory: what is built must not stay
            served.engine.close(drain_seconds=0)
            raise
        return replace(served, bounds=Bounds(scope, elsewhere))

    def _scope(self, checkpoint_id: str, adapter: Mapping[str, bytes]) -> Scope | None:
        """The adapter's scope, when questions can be held against it here."""
        try:
            scope = read_scope(adapter)
            if scope is not None:
                self._require_same_embedder(scope)
        except (ValueError, EmbedderError) as error:
            raise LoadError(f"checkpoint {checkpoint_id[:12]} does not load: {error}") from error
        return scope

    def _require_same_embedder(self, scope: Scope) -> None:
        if self._embedder is None:
            raise ValueError(f"it has a {SCOPE_FILE}, and there is no embedder here to place questions with")
        scope.require_embedder(self._embedder.id)
        width = self._embedder().dim
        if scope.dim != width:
            raise ValueError(f"{SCOPE_FILE} has vectors of width {scope.dim}, its embedder's are {width}; train again")

    def _build(self, checkpoint_id: str, adapter: Mapping[str, bytes] | None) -> ServedModel:
        if adapter is not None or self._library:
            self._require_memory()
        try:
            runner = self._runner(adapter)
        except (ValueError, KeyError) as error:
            raise LoadError(f"checkpoint {checkpoint_id[:12]} does not load: {error}") from error
        engine = EmbeddedEngine(
            runner,
            self.tokenizer,
            max_batch=self._settings.max_batch,
            max_waiting=self._settings.max_waiting,
            max_context=self.max_context,
            grammars=self.grammars,
        )
        served = ServedModel(checkpoint_id, engine)
        try:
            smoke_test(served, self.tokenizer)
        except BaseException:  # also a full queue: the thread and the cache must not stay
            engine.close(drain_seconds=0)
            raise
        return served

    def _kernels(self) -> tuple[ctypes.CDLL | None, str | None]:
        """The kernels, or why there are none; neither where they have no place."""
        if self.device.type != "cpu":
            return None, None
        if self._settings.kernels is None or self._settings.dtype == "float32":
            return None, "float32 was asked for" if self._settings.dtype == "float32" else "kernels are switched off"
        try:
            return build.load(self._settings.kernels), None
        except (build.NoKernels, OSError) as error:
            return None, str(error)

    def _runner(self, adapter: Mapping[str, bytes] | None) -> Runner:
        if self._library is None:
            model = self._base if adapter is None else merge_adapter(self._base, adapter)
            return ReferenceRunner(model, self.num_blocks)
        merged = None if adapter is None else Adapter(self._base, adapter).merged
        weights = pack(self._base, self.max_context + 1, merged, is_int8=self.weights == "int8")
        return NativeRunner(
            self._library, weights, num_blocks=self.num_blocks, threads=self._settings.threads, turn=self._turn
        )

    def _require_quantization(self) -> None:
        """A setting that cannot be had is an error: to serve twice the size in silence would surprise."""
        if self._settings.quantization == "int8" and self._library is None:
            reason = self.slow_because or f"this is {self.device}"
            raise ValueError(f"int8 weights need the CPU kernels: {reason}; set HONED_QUANTIZATION to none")

    def _require_memory(self) -> None:
        """Refuse clearly when one more copy and its cache would not fit where the models are."""
        weights = sum(p.numel() * p.element_size() for p in self._base.parameters())
        needed = int(1.2 * weights) + self.num_blocks * self._block_bytes
        free = free_bytes(self.device)
        if free < needed:
            raise LoadError(
                f"one more model and its cache need {needed >> 20} MiB and {free >> 20} MiB are free; "
                "stop something first, or set HONED_CACHE_MB lower"
            )


def smoke_test(served: ServedModel, tokenizer: Tokenizer, *, max_tokens: int = SMOKE_TOKENS) -> None:
    """A few real tokens from this engine: it answers, with finite figures. LoadError otherwise."""
    request = GenerationRequest(tuple(tokenizer.chat_ids(SMOKE_MESSAGES)), Sampling(max_tokens=max_tokens))
    try:
        _, tokens, end = complete(served.engine, request)
    except ValueError as error:
        raise LoadError(
            f"checkpoint {served.checkpoint_id[:12]} failed its smoke test: {error}; "
            "set HONED_MAX_CONTEXT higher, or choose another model"
        ) from error
    if end.reason is FinishReason.ERROR or not tokens:
        raise LoadError(
            f"checkpoint {served.checkpoint_id[:12]} failed its smoke test: {end.error or 'it said nothing'}"
        )


class Serving:
    """The one place that knows who answers now. Thread-safe."""

    def __init__(self, first: ServedModel) -> None:
        self._lock = threading.Lock()
        self._current = first
        self._draining: list[ServedModel] = []
        self.num_swaps = 0
        self.num_cut = 0  # requests that a swap's deadline ended
        self._retired = EngineStats()
        self._num_threads: int | None = None

    @property
    def current(self) -> ServedModel:
        """The model for a request that starts now; it keeps that model to its end."""
        with self._lock:
            return self._current

    def flip(self, new: ServedModel) -> tuple[ServedModel, ...]:
        """From now on `new` answers; returns those that no question reaches any more, still finishing what they have,
        for the caller to drain.
        """
        with self._lock:
            for model in new.all:
                if self._num_threads is not None:
                    model.engine.use_threads(self._num_threads)
            kept = [model.engine for model in new.all]
            left = tuple(model for model in self._current.all if model.engine not in kept)
            self._current = new
            self._draining += left
            self.num_swaps += 1
        return left

    def fault(self) -> str | None:
        """Why a worker that is needed now died, if one did."""
        return next(filter(None, (model.engine.fault() for model in self.current.all)), None)

    def num_active(self) -> int:
        """Requests queued or running where new ones would go."""
        return sum(model.engine.num_active() for model in self.current.all)

    def has_room(self) -> bool:
        """Whether a request that comes now could be queued wherever it belongs, which is not known yet. The engines
        share their cores: while one queue is full, no request is quick.
        """
        return all(model.engine.has_room() for model in self.current.all)

    def use_threads(self, count: int) -> None:
        """For whatever serves now and comes later."""
        with self._lock:
            if count != self._num_threads:
                self._num_threads = count
                for model in (*self._current.all, *self._draining):
                    model.engine.use_threads(count)

    def retire(self, old: ServedModel, num_cut: int) -> None:
        """It is closed: of its figures only the counters are kept."""
        with self._lock:
            self._draining.remove(old)
            self.num_cut += num_cut
            over = replace(old.engine.stats(), num_running=0, num_waiting=0, cache_usage=0.0)
            self._retired += over

    def stats(self) -> EngineStats:
        """Of all engines together since the beginning, so that counters never go back when weights change."""
        with self._lock:
            alive = (*self._current.all, *self._draining)
            return sum((model.engine.stats() for model in alive), start=self._retired)
