"""Which conversations stay on one side when some are held out: the same one, and those that ask alike. Pure."""

from collections.abc import Sequence

import numpy as np

from agent.embedding import Vectors

ALIKE = 0.8  # cosine of questions from which one may give the other's answer away


def together(conversations: Sequence[str], vectors: Vectors) -> dict[str, str]:
    """Of each conversation, the oldest of those it must stay with, through others too: single linkage. Questions come
    oldest first, with their unit vectors (N, dim); zeros are like nothing. A group keeps its name when more is asked.
    """
    oldest: dict[str, str] = {}
    age = {name: place for place, name in reversed(list(enumerate(conversations)))}
    for place, name in enumerate(conversations):
        near = np.flatnonzero(vectors[:place] @ vectors[place] >= ALIKE)
        joined = {_root(oldest, conversations[other]) for other in near.tolist()} | {_root(oldest, name)}
        first = min(joined, key=age.__getitem__)
        oldest |= dict.fromkeys(joined, first)
    return {name: _root(oldest, name) for name in conversations}


def _root(oldest: dict[str, str], name: str) -> str:
    while oldest.get(name, name) != name:
        name = oldest[name]
    return name
