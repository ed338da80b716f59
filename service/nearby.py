"""What was asked near what a candidate was taught, and was never taught: what it may change unasked."""

from collections.abc import Callable

from agent.scope import Scope
from agent.scoring import normalise
from store.interactions import Interactions
from store.records import Interaction
from store.vectors import VectorIndex

MAX_ITEMS = 40
SEARCHED = 64  # logged questions looked at for each taught one: many may be the same
MAX_PROMPT = 512  # tokens: a candidate is asked many, and nobody reads long ones in a review
SAME_COSINE = 0.97  # from here it is a taught question in other words


class Nearby:
    """Reads; changes nothing."""

    def __init__(self, interactions: Interactions, index: Callable[[], VectorIndex]) -> None:
        self._interactions = interactions
        self._index = index

    def found(self, scope: Scope, taught: set[str]) -> list[Interaction]:
        """Logged questions inside the scope that are none of the `taught` texts, each once, the nearest first."""
        nearest: dict[str, float] = {}
        for vector in scope.vectors:
            for id_, cosine in self._index().search(vector, SEARCHED):
                nearest[id_] = max(cosine, nearest.get(id_, -1.0))
        seen = set(map(normalise, taught))
        found: list[Interaction] = []
        for id_ in sorted(nearest, key=lambda id_: -nearest[id_]):
            if len(found) == MAX_ITEMS or nearest[id_] < scope.nearness:
                break
            interaction = self._interactions.get(id_) if nearest[id_] < SAME_COSINE else None
            if interaction is None or interaction.prompt_tokens > MAX_PROMPT:
                continue
            if normalise(interaction.question) not in seen:
                seen.add(normalise(interaction.question))
                found.append(interaction)
        return found
