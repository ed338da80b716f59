"""Events on their way from the engine's thread to the event loop."""

import asyncio
from collections import deque

from agent.engine import Event


class Mailbox:
    """One call wakes the loop for all events of a step, not one for each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._letters: deque[tuple[asyncio.Queue[tuple[int, Event]], int, Event]] = deque()
        self._is_called = False

    def put(self, queue: "asyncio.Queue[tuple[int, Event]]", index: int, event: Event) -> None:
        """On the engine's thread."""
        self._letters.append((queue, index, event))
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._is_called = False  # first: what comes from here on calls again
        while self._letters:
            queue, index, event = self._letters.popleft()
            queue.put_nowait((index, event))
