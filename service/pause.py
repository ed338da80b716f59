"""What stands in an engine's place while weights change that do not fit beside each other: it answers nothing."""

from agent.engine import EngineClosed, EngineStats, GenerationRequest, Listener, Ticket


class Pause:
    """An engine without a model. Once it `fail`s it counts as dead, and is rebuilt like any other that died."""

    def __init__(self) -> None:
        self._fault: str | None = None

    def fail(self, reason: str) -> None:
        self._fault = reason

    def submit(self, request: GenerationRequest, listener: Listener) -> Ticket:
        raise EngineClosed(self._fault or "other weights are being loaded; send the request again in a moment")

    def has_room(self) -> bool:
        return True  # there is no queue to be full: `submit` says what is wrong

    def num_active(self) -> int:
        return 0

    def stats(self) -> EngineStats:
        return EngineStats()

    def use_threads(self, count: int) -> None:
        pass

    def last_step_at(self) -> float | None:
        return None

    def fault(self) -> str | None:
        return self._fault

    def close(self, drain_seconds: float) -> int:
        return 0
