"""How many of each person's words one run learns from: what they said last counts, and this machine's own all does."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from service.access import LOCAL
from store.records import Feedback

T = TypeVar("T")
ALL = (1 << 63) - 1  # what a rule can compare


class Quota:
    """Counts what was taken of each person."""

    def __init__(self, per_person: int) -> None:
        self._per_person = per_person
        self._taken: Counter[str] = Counter()

    def cap(self, principal: str) -> int:
        """Those who come with a key may be many, and anybody. This machine's own people sign what is learnt."""
        return ALL if principal == LOCAL else self._per_person

    def num_taken(self, principal: str) -> int:
        return self._taken[principal]

    def take(self, principal: str) -> None:
        self._taken[principal] += 1


def newest_first(said: Iterable[T], word: Callable[[T], Feedback]) -> list[T]:
    """The order in which a quota is used up: new words must not wait for ever behind old ones."""
    return sorted(said, key=lambda one: word(one).created_at)[::-1]
