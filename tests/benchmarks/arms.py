"""What keeps what the base knew: the ways to hold an adapter side by side, each one run on the same 100 invented facts:
`make bench-arms`

A night trains from the base on all that was taught, so one run on all facts is the last of twenty nights.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from agent import suites
from agent.recipe import Recipe
from service.demo import Fact
from tests.benchmarks.asking import settings, vectors
from tests.benchmarks.findings import Finding, tell
from tests.benchmarks.invented import facts
from tests.benchmarks.lessons import SEED, Bench, Learnt, bench, measure, percent, train

POINT = "forgetting"
PLAIN = Recipe(is_aimed=False, replay_batch=0, learning_rate=5e-4)  # what trainers do as they come
ARMS: Mapping[str, Recipe] = {
    "plain LoRA, no replay": PLAIN,
    "no replay": Recipe(replay_batch=0),
    "replay as text": Recipe(replay_is_text=True),
    "replay as KL (default recipe)": Recipe(),
}
SCOPED = "the same, scoped"
NEARNESS = 0.5


def scoped(taught: list[Fact], on: Bench, found: Learnt, nearness: float) -> Learnt:
    """The last arm as it serves with a scope: what is not near a taught question gets the base's answer."""
    of = settings()
    known = vectors(of, [fact.question for fact in taught])

    def near(texts: list[str]) -> npt.NDArray[np.bool_]:
        return np.asarray((vectors(of, texts) @ known.T).max(axis=1) >= nearness)

    reached = near([fact.paraphrase for fact in taught])
    apart = ~near([item["question"] for item, _ in on.kept])
    own = apart[: len(on.own)]
    return replace(
        found,
        paraphrased=[right and bool(is_near) for right, is_near in zip(found.paraphrased, reached, strict=True)],
        kept=[right or bool(is_far) for right, is_far in zip(found.kept, apart, strict=True)],
        nll_rise=found.nll_rise * float(1 - own.mean()),
        length=float("nan"),
    )
