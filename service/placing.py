"""Questions to the vectors that tell who answers them, where the champion answers only near what it was taught.

That takes some milliseconds of the embedder's, so it happens beside the event loop.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agent.embedding import Embedder, Vectors
from agent.engine import EngineBusy
from service.metrics import Metrics

Placed = Mapping[str, Vectors]


class NotPlaced(RuntimeError):
    """It cannot be known who is to answer a question, so nobody does."""


class Placing:
    """Places texts; which of them are near is the scope's own affair. For one event loop."""

    def __init__(self, embedder: Callable[[], Embedder], metrics: Metrics, *, max_waiting: int) -> None:
        """`max_waiting` requests may wait for the embedder, which takes one after the other."""
        self._embedder = embedder
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._num_waiting = 0

    def has_room(self) -> bool:
        return self._num_waiting < self._max_waiting

    async def vectors(self, texts: Sequence[str]) -> Placed:
        """The unit vector (dim,) of each text. EngineBusy when too many wait for theirs; NotPlaced when the embedder
        fails.
        """
        if not self.has_room():
            raise EngineBusy(f"{self._num_waiting} requests are waiting to be placed; try again shortly")
        self._num_waiting += 1
        began = time.monotonic()
        try:
            return await asyncio.to_thread(self._vectors, list(dict.fromkeys(texts)))
        finally:
            self._num_waiting -= 1
            self._metrics.placed(time.monotonic() - began)

    def _vectors(self, texts: list[str]) -> Placed:
        try:
            vectors = self._embedder().embed(texts)
        except (RuntimeError, ValueError) as error:  # EmbedderError is one; torch has no class of its own
            raise _not_placed(str(error)) from error
        if not np.isfinite(vectors).all():
            raise _not_placed("its vector holds what is no number")
        return dict(zip(texts, vectors, strict=True))


def _not_placed(reason: str) -> NotPlaced:
    return NotPlaced(
        f"the question could not be held against what was taught: {reason}; try again, or restart the daemon"
    )
