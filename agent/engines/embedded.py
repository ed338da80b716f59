"""The engine in this process: one thread that schedules, runs and hands out tokens.

Requests join and leave at any step. A fault kills the worker, not the daemon: every request under way ends with reason
ERROR and `fault()` says why, so that it can be rebuilt.
"""

import contextlib
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import torch

from agent.engine import (
    Alternative,
    EngineBusy,
    EngineClosed,
    EngineStats,
    Finished,
    GenerationRequest,
    Listener,
    PromptRead,
    Token,
)
from agent.engines.blocks import BlockPool, blocks_for
from agent.engines.runner import Next, Piece, Runner
from agent.engines.scheduler import Budget, Scheduler
from agent.engines.slot import Slot, require_possible
from agent.grammar import Grammars
from agent.sampling import adjust, choice, is_greedy, is_plain, top_choices
from agent.tokenizer import TextStream, Tokenizer
from store.records import FinishReason

IDLE_WAIT_SECONDS = 0.5


class EmbeddedEngine:
    """Continuous batching over one runner. Thread-safe."""

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 8,
        max_waiting: int = 64,
        max_context: int = 4096,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        grammars: Grammars | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if blocks_for(max_context + 1) > runner.num_blocks:
            raise ValueError(
                f"a cache of {runner.num_blocks} blocks cannot hold one context of {max_context} tokens; "
                "give more cache or a smaller context"
            )
        self.max_context = max_context
        self._runner = runner
        self._tokenizer = tokenizer
        self._grammars = grammars or Grammars(tokenizer.inner, runner.vocabulary_size)
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: OrderedDict[Slot, None] = OrderedDict()  # those of `_open` that the scheduler has not seen
        self._scheduler: Scheduler[Slot] = Scheduler(BlockPool(runner.num_blocks), max_batch=max_batch, budget=budget)
        self._open: set[Slot] = set()  # every request that has not been told its end
        self._clock = clock
        self._last_step_at: float | None = None
        self._num_prompt = self._num_generated = 0
        self._busy_seconds = 0.0
        self._threads_wanted: int | None = None
        self._threads_told: int | None = None  # to the runner
        self._fault: str | None = None
        self._is_draining = False
        self._must_stop = threading.Event()
        self._lock = threading.Lock()  # orders `submit` against the end of the worker
        self._has_come = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, listener: Listener) -> Slot:
        require_possible(request, self.max_context, self._runner.vocabulary_size)
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(63)
        text = TextStream(self._tokenizer, request.sampling.stop)
        matcher = self._grammars.matcher(request.grammar) if request.grammar else None
        slot = Slot(request, listener=listener, text=text, seed=seed, matcher=matcher)
        with self._lock:
            if self._is_draining or self._fault:
                raise EngineClosed(self._fault or "this engine is being replaced; send the request again")
            if not self._has_room():
                raise EngineBusy(f"{self._max_waiting} requests are waiting already; try again shortly")
            self._open.add(slot)
            self._waiting[slot] = None
            self._has_come.notify()
        return slot

    def has_room(self) -> bool:
        # what came between two steps waits too, though the batch has places for it; who left needs none
        with self._lock:
            return self._has_room()

    def _has_room(self) -> bool:
        most = self._max_batch + self._max_waiting
        return len(self._open) < most or sum(not slot.is_cancelled.is_set() for slot in self._open) < most

    def num_active(self) -> int:
        return len(self._open)

    def stats(self) -> EngineStats:
        scheduler, pool = self._scheduler, self._scheduler.pool
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(self._waiting) + len(scheduler.ready),
            cache_usage=1.0 - pool.num_free / pool.num_blocks,
            prompt_tokens=self._num_prompt,
            generated_tokens=self._num_generated,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            num_preemptions=scheduler.num_preemptions,
            busy_seconds=self._busy_seconds,
        )

    def use_threads(self, count: int) -> None:
        self._threads_wanted = count

    def last_step_at(self) -> float | None:
        """A step that reads or scores a prompt counts too: it proves the engine as well as a token."""
        return self._last_step_at

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
        finally:
            self._runner.close()

    def step(self) -> None:
        """One round: schedule, run, postprocess."""
        self._admit()
        self._drop_cancelled()
        self._tell_threads()
        work = self._scheduler.schedule()
        if not work:
            return
        began = time.perf_counter()
        coming = self._runner.run([piece for _, piece in work])
        for slot, piece in work:
            self._scheduler.advance(slot, len(piece.ids))
        self._busy_seconds += time.perf_counter() - began
        if not all(math.isfinite(figures.entropy) for figures in coming.figures):
            raise FloatingPointError("the model gave NaN or infinite logits; its weights or the machine are faulty")
        self._last_step_at = self._clock()
        self._deliver(*self._score(coming, work))

    def _tell_threads(self) -> None:
        """Whoever asks again meanwhile is heard in the next step."""
        wanted = self._threads_wanted
        if wanted is not None and wanted != self._threads_told:
            self._runner.use_threads(wanted)
            self._threads_told = wanted

    def _score(self, coming: Next, work: list[tuple[Slot, Piece]]) -> tuple[Next, list[Slot]]:
        """Keep the figures of prompts that are scored; returns the rows that a token is to be chosen from, and whose.

        A row after a prompt token says how likely the next one was; the row after the last says what comes next.
        """
        rows, slots, row = [], [], 0
        for slot, piece in work:
            if piece.is_scored:
                del slot.scored[piece.position :]  # it may be read again after giving up its place
            for number in range(row, row + piece.num_wanted - piece.is_whole):
                place = piece.position + number - row + 1
                num_top = slot.request.prompt_logprobs or 0
                slot.scored.append(self._token(slot.ids[place], coming, number, "", num_top))
            row += piece.num_wanted
            if piece.is_whole and not slot.num_generated:
                self._num_prompt += len(slot.request.prompt_ids)
            if piece.is_scored and piece.is_whole:
                slot.listener(PromptRead(tuple(slot.scored)))
            if piece.is_whole and slot.request.sampling.max_tokens == 0:
                self._finish(slot, FinishReason.LENGTH)
            elif piece.is_whole:
                rows.append(row - 1)
                slots.append(slot)
        if len(rows) == len(coming.figures):
            return coming, slots
        return Next(coming.logits[rows], [coming.figures[number] for number in rows]), slots

    def _admit(self) -> None:
        """Take from those who wait what may begin; with nothing to do, wait for work."""
        scheduler = self._scheduler
        with self._has_come:
            if not (self._waiting or scheduler.running or scheduler.ready):
                self._has_come.wait(IDLE_WAIT_SECONDS)
            while self._waiting and scheduler.num_places > 0:
                scheduler.ready.append(self._waiting.popitem(last=False)[0])

    def _deliver(self, coming: Next, slots: list[Slot]) -> None:
        """Choose each slot's token, tell its listener, and let the finished ones leave."""
        for number, token_id in enumerate(self._choose(coming, slots)):
            self._emit(slots[number], token_id, coming, number)

    def _choose(self, coming: Next, slots: list[Slot]) -> list[int]:
        """A token for each slot; only rows that are not simply greedy are looked at again."""
        chosen = [figures.best for figures in coming.figures]
        drawn, rows, choices = [], [], []
        for number, slot in enumerate(slots):
            sampling, logits = slot.request.sampling, coming.logits[number]
            if slot.matcher or not is_plain(sampling):
                logits = adjust(logits, sampling, slot.counts)
                if slot.matcher:
                    slot.matcher.forbid(logits)
                chosen[number] = int(logits.argmax())
            if not is_greedy(sampling):
                drawn.append(number)
                rows.append(logits)
                choices.append(choice(sampling, slot.seed, slot.num_generated))
        if drawn:
            for number, token_id in zip(drawn, self._runner.choose(rows, choices), strict=True):
                chosen[number] = token_id
        return chosen

    def _emit(self, slot: Slot, token_id: int, coming: Next, row: int) -> None:
        """Send one token, and the end if it was the last."""
        sampling = slot.request.sampling
        if slot.matcher:
            slot.matcher.take(token_id)
            if fault := slot.matcher.fault():
                self._finish(slot, FinishReason.ERROR, f"the answer cannot follow its form any further: {fault}")
                return
        if token_id in self._tokenizer.eos_ids and not sampling.ignore_eos:
            self._finish(slot, FinishReason.STOP)
            return
        slot.ids.append(token_id)
        self._num_generated += 1
        if not is_plain(sampling):
            slot.counts[token_id] += 1
        slot.listener(self._token(token_id, coming, row, slot.text.push(token_id), sampling.top_logprobs))
        room = self.max_context - len(slot.request.prompt_ids)
        if slot.text.is_stopped:
            self._finish(slot, FinishReason.STOP)
        elif slot.num_generated >= min(sampling.max_tokens, room):
            self._finish(slot, FinishReason.LENGTH)

    def _token(self, token_id: int, coming: Next, row: int, text: str, num_top: int) -> Token:
        """A token with its figures in that row."""
        logits, figures = coming.logits[row], coming.figures[row]
        choices = top_choices(logits, figures.log_total, num_top)
        top = tuple(Alternative(i, self._tokenizer.piece(i), logprob) for i, logprob in choices)
        logprob = float(logits[token_id]) - figures.log_total
        piece = self._tokenizer.piece(token_id)
        return Token(token_id, text, piece, logprob, figures.entropy, figures.margin, top)

    def _drop_cancelled(self) -> None:
        """Of all, those too that still wait: their clients must not wait for a place to learn of it."""
        with self._lock:
            gone = [slot for slot in self._open if slot.is_cancelled.is_set()]
        for slot in gone:
            self._finish(slot, FinishReason.DISCONNECT)

    def _finish(self, slot: Slot, reason: FinishReason, error: str | None = None) -> None:
        self._scheduler.remove(slot)
        self._end(slot, reason, error)

    def _end(self, slot: Slot, reason: FinishReason, error: str | None = None) -> None:
        """Tell a request its end, once: it is no longer open, whatever its listener does."""
        with self._lock:
            self._open.discard(slot)
            self._waiting.pop(slot, None)
        slot.listener(Finished(reason, slot.text.flush(), error, slot.num_found))

    def _end_all(self, message: str) -> None:
        with self._lock:  # whoever comes now is refused by `submit`: it drains or has a fault
            cut = list(self._open)
        for slot in cut:
            with contextlib.suppress(Exception):  # one listener's fault must not keep the others waiting for ever
                self._end(slot, FinishReason.ERROR, message)
