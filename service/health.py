"""Is this worker answering? Ready means that the engine which serves lately made a real token."""

import time
from collections.abc import Callable

from agent.engine import EngineBusy, EngineClosed
from agent.serving import LoadError, Serving, smoke_test
from agent.tokenizer import Tokenizer


class Health:
    """Readiness from the engine's own tokens; `probe` makes some when nobody asks anything."""

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
        engine = self._serving.current.engine
        if engine.fault():
            return engine.fault()
        last = engine.last_token_at()
        if last is None or self._clock() - last > self._ready_seconds:
            return f"the engine made no token in the last {self._ready_seconds:g} seconds"
        return None

    def probe(self) -> None:
        """Ask the idle engine for a few tokens; a busy one proves itself."""
        served = self._serving.current
        if served.engine.num_active() or served.engine.fault():
            return
        try:
            smoke_test(served, self._tokenizer)
        except (LoadError, EngineClosed, EngineBusy):
            return  # `problem` tells: no fresh token, or the engine's fault
