"""What is made when it is first asked for."""

import threading
import time

import pytest

from service.once import Once


def test_whoever_asks_at_once_gets_the_one_that_was_made() -> None:
    made: list[object] = []

    def make() -> object:
        time.sleep(0.01)
        made.append(object())
        return made[-1]

    once, got = Once(make), list[object]()
    threads = [threading.Thread(target=lambda: got.append(once())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert got == made * 8


def test_after_a_failure_it_is_tried_again() -> None:
    answers = iter([OSError("no disk"), 7])

    def make() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(OSError, match="no disk"):
        once()
    assert [once(), once()] == [7, 7]
