"""Kinds of question in an evaluation, each scored by itself: a mean can rise while one kind of question falls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.clusters import Ints, Vectors, assign, centres, names
from agent.results import MODELS, NEARBY

MAX_SLICES = 8
MIN_SIZE = 12  # questions: a share of fewer says little
SEED = 0


def slices(lines: Sequence[Mapping[str, Any]], vectors: Vectors) -> list[dict[str, Any]]:
    """Lines of `results.side_by_side` by what their questions are about, the largest kind first: {name, num_items,
    num_right: by model, num_lost}; what is lost is right with the champion and not with the candidate. `vectors`
    (N, dim) are the questions', of unit length. Empty when there are too few lines; those that nobody can judge are
    left out.
    """
    judged = [place for place, line in enumerate(lines) if line["suite"] != NEARBY]
    lines, vectors = [lines[place] for place in judged], vectors[judged]
    kind = _kinds(vectors)
    if not len(kind):
        return []
    count = int(kind.max()) + 1
    named = names([str(line["question"]) for line in lines], kind, count)
    found = []
    for number, size in Counter(kind.tolist()).most_common():
        chosen = [line for line, of in zip(lines, kind, strict=True) if of == number]
        right = {model: sum(bool(line[model]["is_right"]) for line in chosen) for model in MODELS}
        lost = sum(line["champion"]["is_right"] and not line["candidate"]["is_right"] for line in chosen)
        found.append({"name": named[number] or "–", "num_items": size, "num_right": right, "num_lost": lost})
    return found


def _kinds(vectors: Vectors) -> Ints:
    """(N,) numbers from 0 of clusters that have MIN_SIZE at least: smaller ones join what is nearest to them."""
    if len(vectors) < MIN_SIZE:
        return np.zeros(0, dtype=np.int64)
    middles = centres(vectors, min(MAX_SLICES, len(vectors) // MIN_SIZE), np.random.default_rng(SEED))
    while True:
        kind = assign(vectors, middles)
        sizes = np.bincount(kind, minlength=len(middles))
        if len(middles) == 1 or sizes.min() >= MIN_SIZE:
            return kind
        middles = np.delete(middles, int(sizes.argmin()), axis=0)
