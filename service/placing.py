"""Questions to the vectors that tell who answers them, where the champion answers only near what it was taught.

That takes some milliseconds of the embedder's, so it happens beside the event loop.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agent.embedding import Embedder, Vectors

Placed = Mapping[str, Vectors]


class NotPlaced(RuntimeError):
    """It cannot be known who is to answer a question, so nobody does."""


class Placing:
    """Places texts; which of them are near is the scope's own affair."""

    def __init__(self, embedder: Callable[[], Embedder]) -> None:
        self._embedder = embedder

    async def vectors(self, texts: Sequence[str]) -> Placed:
        """The unit vector (dim,) of each text. NotPlaced when the embedder fails."""
        return await asyncio.to_thread(self._vectors, list(dict.fromkeys(texts)))

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
