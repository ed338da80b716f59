"""Who waits to be placed, and who need not try."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from agent.engine import EngineBusy
from service.placing import NotPlaced, Placing


class Held:
    """An embedder that answers when it is let."""

    dim = 2

    def __init__(self) -> None:
        self.is_let = threading.Event()

    def embed(self, texts: Any) -> np.ndarray:
        assert self.is_let.wait(10)
        return np.ones((len(texts), 2), dtype=np.float32)

    def count(self, texts: Any) -> int:
        return len(texts)


class Watch:
    """What is measured of it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def placed(self, seconds: float) -> None:
        self.seconds.append(seconds)


def test_as_many_wait_as_there_is_room_for_and_one_more_is_refused_at_once() -> None:
    embedder, watch = Held(), Watch()
    placing = Placing(lambda: embedder, watch, max_waiting=2)

    async def scene() -> list[Any]:
        waiting = [asyncio.create_task(placing.vectors([f"question {n}"])) for n in range(2)]
        await asyncio.sleep(0)
        assert not placing.has_room()
        with pytest.raises(EngineBusy, match="2 requests are waiting to be placed; try again shortly"):
            await placing.vectors(["one more"])
        embedder.is_let.set()
        return await asyncio.gather(*waiting)

    found = asyncio.run(scene())
    assert [list(placed) for placed in found] == [["question 0"], ["question 1"]]
    assert placing.has_room()
    assert len(watch.seconds) == 2


def test_a_place_is_free_again_after_a_failure() -> None:
    def broken() -> Any:
        raise RuntimeError("no such file")

    placing = Placing(broken, Watch(), max_waiting=1)
    for _ in range(2):
        with pytest.raises(NotPlaced, match="no such file; try again, or restart the daemon"):
            asyncio.run(placing.vectors(["Why?"]))
    assert placing.has_room()
