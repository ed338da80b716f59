"""Is this worker answering? Ready means that the engine which serves lately read or made real tokens."""

import time
from collections.abc import Callable

from agent.engine import EngineBusy, EngineClosed
from agent.served import ServedModel
from agent.serving import LoadError, Serving, smoke_test
from agent.tokenizer import Tokenizer


class Health:
    """Readiness from the engine's own steps; `probe` makes one when nobody asks anything."""

    def __init__(
        self,
        serving: Serving,
        tokenizer: Tokenizer,
        *,
        ready_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._serving = serving
        self._tokenizer = tokenizer
        self._ready_seconds = ready_seconds
        self._clock = clock

    def problem(self) -> str | None:
        """None when ready, else what is wrong."""
        fault = self._serving.fault()
        if fault:
            return fault
        for model in self._serving.current.all:
            last = model.engine.last_step_at()
            if last is None or self._clock() - last > self._ready_seconds:
                return f"the engine finished no step in the last {self._ready_seconds:g} seconds"
        return None

    def probe(self) -> None:
        """Ask engines that have been idle for a while for one token; a busy one proves itself."""
        for model in self._serving.current.all:
            self._probe(model)

    def _probe(self, served: ServedModel) -> None:
        last = served.engine.last_step_at()
        is_fresh = last is not None and self._clock() - last < self._ready_seconds / 2
        if is_fresh or served.engine.num_active() or served.engine.fault():
            return
        try:
            smoke_test(served, self._tokenizer, max_tokens=1)
        except (LoadError, EngineClosed, EngineBusy):
            return  # `problem` tells: no fresh step, or the engine's fault
