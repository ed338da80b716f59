"""The engine in this process: one thread that admits, decodes a batch and hands out tokens.

`step()` is: admit waiting requests, run the batch once, deliver. Requests join and leave at any step. A fault kills the
worker, not the daemon: every request under way ends with reason ERROR and `fault()` says why, so that it can
be rebuilt.
"""

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from agent.engine import Alternative, EngineBusy, EngineClosed, Finished, GenerationRequest, Listener, Token
from agent.engines.batch import DecodeBatch
from agent.sampling import choose, figures, top_choices
from agent.tokenizer import TextStream, Tokenizer
from store.records import FinishReason

IDLE_WAIT_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class _Slot:
    """One request, from queue to end."""

    request: GenerationRequest
    listener: Listener
    text: TextStream
    generator: torch.Generator | None
    num_tokens: int = 0
    next_id: int = -1
    is_cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.is_cancelled.set()


class EmbeddedEngine:
    """Batched decoding over one transformers model. Thread-safe."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 8,
        max_waiting: int = 64,
        max_context: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_context = max_context
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._waiting: queue.Queue[_Slot] = queue.Queue(max_waiting)
        self._running: list[_Slot] = []
        self._open: set[_Slot] = set()  # every request that has not been told its end
        self._batch = DecodeBatch(model)
        self._device = next(model.parameters()).device
        self._clock = clock
        self._last_token_at: float | None = None
        self._fault: str | None = None
        self._is_draining = False
        self._must_stop = threading.Event()
        self._lock = threading.Lock()  # orders `submit` against the end of the worker
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, listener: Listener) -> _Slot:
        slot = _Slot(request, listener, TextStream(self._tokenizer, request.sampling.stop), self._generator(request))
        with self._lock:
            if self._is_draining or self._fault:
                raise EngineClosed(self._fault or "this engine is being replaced; send the request again")
            try:
                self._waiting.put_nowait(slot)
            except queue.Full:
                raise EngineBusy(f"{self._waiting.maxsize} requests are waiting already; try again shortly") from None
            self._open.add(slot)
        return slot

    def num_active(self) -> int:
        return len(self._open)

    def last_token_at(self) -> float | None:
        return self._last_token_at

    def fault(self) -> str | None:
        return self._fault

    def close(self, drain_seconds: float) -> int:
        with self._lock:
            self._is_draining = True
        deadline = self._clock() + drain_seconds
        while self.num_active() and self._fault is None and self._clock() < deadline:
            time.sleep(0.01)
        num_cut = self.num_active()
        self._must_stop.set()
        self._thread.join(timeout=30)
        return num_cut

    # ── the worker thread ────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                while not self._must_stop.is_set():
                    self.step()
            self._end_all("the engine was closed before the answer was complete; send the request again")
        except Exception as error:  # noqa: BLE001 - the worker's outermost frame: the fault is kept, told and acted on
            self._fault = f"the engine stopped: {type(error).__name__}: {error}"
            self._end_all(self._fault)

    def step(self) -> None:
        """One round: admit, run, deliver."""
        self._admit()
        self._drop_cancelled()
        if self._running:
            logits = self._batch.step([slot.next_id for slot in self._running])
            self._deliver(logits, self._running)

    def _admit(self) -> None:
        """Take in what waits and fits, and read all its prompts in one pass; with nothing to do, wait for work."""
        joining: list[_Slot] = []
        while len(self._running) + len(joining) < self._max_batch:
            try:
                slot = self._waiting.get(block=not (self._running or joining), timeout=IDLE_WAIT_SECONDS)
            except queue.Empty:
                break
            if slot.is_cancelled.is_set():
                self._end(slot, FinishReason.DISCONNECT)
            else:
                joining.append(slot)
        if joining:
            self._running += joining
            logits = self._batch.join([slot.request.prompt_ids for slot in joining])
            self._deliver(logits, joining)

    def _deliver(self, logits: torch.Tensor, slots: list[_Slot]) -> None:
        """Choose each slot's token, tell its listener, and let the finished ones leave the batch."""
        logprobs, entropies = figures(logits)
        if not bool(torch.isfinite(entropies).all()):
            raise FloatingPointError("the model gave NaN or infinite logits; its weights or the machine are faulty")
        self._last_token_at = self._clock()
        finished = [slot for row, slot in enumerate(slots) if self._emit(slot, logprobs[row], float(entropies[row]))]
        self._leave(finished)

    def _emit(self, slot: _Slot, logprobs: torch.Tensor, entropy: float) -> bool:
        """Send one token; true when it was the last."""
        sampling = slot.request.sampling
        token_id = choose(logprobs, sampling, slot.generator)
        slot.next_id = token_id
        if token_id in self._tokenizer.eos_ids:
            self._end(slot, FinishReason.STOP)
            return True
        slot.num_tokens += 1
        piece = self._tokenizer.piece(token_id)
        top = tuple(
            Alternative(i, self._tokenizer.piece(i), p) for i, p in top_choices(logprobs, sampling.top_logprobs)
        )
        slot.listener(Token(token_id, slot.text.push(token_id), piece, float(logprobs[token_id]), entropy, top))
        if slot.text.is_stopped:
            self._end(slot, FinishReason.STOP)
            return True
        room = self.max_context - len(slot.request.prompt_ids)
        if slot.num_tokens >= min(sampling.max_tokens, room):
            self._end(slot, FinishReason.LENGTH)
            return True
        return False

    def _drop_cancelled(self) -> None:
        cancelled = [slot for slot in self._running if slot.is_cancelled.is_set()]
        for slot in cancelled:
            self._end(slot, FinishReason.DISCONNECT)
        self._leave(cancelled)

    def _leave(self, slots: list[_Slot]) -> None:
        if not slots:
            return
        kept = [row for row, slot in enumerate(self._running) if slot not in slots]
        self._batch.select(kept)
        self._running = [self._running[row] for row in kept]

    def _end(self, slot: _Slot, reason: FinishReason, error: str | None = None) -> None:
        """Tell a request its end, once: it is no longer open, whatever its listener does."""
        with self._lock:
            self._open.discard(slot)
        slot.listener(Finished(reason, slot.text.flush(), error))

    def _end_all(self, message: str) -> None:
        with self._lock:  # whoever comes now is refused by `submit`: it drains or has a fault
            cut = list(self._open)
        for slot in cut:
            with contextlib.suppress(Exception):  # one listener's fault must not keep the others waiting for ever
                self._end(slot, FinishReason.ERROR, message)

    def _generator(self, request: GenerationRequest) -> torch.Generator | None:
        if request.sampling.temperature == 0.0:
            return None
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(63)
        return torch.Generator(device=self._device).manual_seed(seed)
