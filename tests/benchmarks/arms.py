"""What keeps what the base knew: the ways to hold an adapter side by side, each in one run on the same 100 invented
facts: `make bench-arms`

Every night trains from the base on all that was taught, so one run on all facts is the last of twenty nights.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.console import Console

from agent.recipe import Recipe, SftSettings
from service.config import Settings
from tests.benchmarks.asking import settings, vectors
from tests.benchmarks.findings import Finding, tell
from tests.benchmarks.invented import Invented, facts
from tests.benchmarks.lessons import SEED, Bench, Learnt, bench, measure, share, train

FACTS = 100
POINT = "forgetting"
ARMS: Mapping[str, Recipe] = {
    "plain LoRA, no replay": Recipe(sft=SftSettings(is_aimed=False, replay_batch=0, learning_rate=5e-4)),
    "no replay": Recipe(sft=SftSettings(replay_batch=0)),
    "replay as text": Recipe(sft=SftSettings(replay_is_text=True)),
    "replay as KL, another seed": Recipe(seed=18),
    "replay as KL": Recipe(),
}
SCOPED = "replay as KL, scoped (as it comes)"


def scoped(of: Settings, on: Bench, taught: Sequence[Invented], found: Learnt) -> Learnt:
    """The last arm as it serves with a scope: what is not near a taught question gets the base's answer."""
    known = vectors(of, [fact.question for fact in taught])

    def near(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.asarray((vectors(of, texts) @ known.T).max(axis=1) >= of.scope_nearness)

    reached, reached_too = (near([getattr(fact, name) for fact in taught]) for name in ("paraphrase", "other"))
    is_own = near([item["question"] for item, _ in on.kept])
    return replace(
        found,
        paraphrased=[right and bool(is_near) for right, is_near in zip(found.paraphrased, reached, strict=True)],
        otherwise=[right and bool(is_near) for right, is_near in zip(found.otherwise, reached_too, strict=True)],
        kept=[right or not is_near for right, is_near in zip(found.kept, is_own, strict=True)],
        nll_rise=found.nll_rise * float(is_own[: len(on.own)].mean()),
        lengths=np.where(is_own, found.lengths, 1.0),
    )


def told(name: str, found: Learnt, figures: Mapping[str, float], seconds: float) -> Finding:
    shares = (
        f"{share(found.asked):.0f} % asked, {share(found.paraphrased):.0f} % paraphrased, "
        f"{share(found.otherwise):.0f} % otherwise, "
        f"{share(found.kept):.1f} % kept, loss {found.nll_rise:+.3f}, length {found.lengths.mean():.2f}"
    )
    return Finding(
        POINT, name, f"{shares}; moved {figures['moved']:.1f} nats; {figures['steps']:.0f} steps, {seconds:.0f} s"
    )


def run(console: Console, num_facts: int = FACTS) -> list[Finding]:
    """An arm a finding, told as soon as it is there."""
    of, taught = settings(), facts(num_facts, SEED)
    on = bench(of)
    rows = []
    for name, recipe in ARMS.items():
        adapter, figures, seconds = train(on, taught, recipe)
        found = measure(on, taught, adapter)
        rows.append(told(name, found, figures, seconds))
        tell(console, rows[-1:])
    rows.append(told(SCOPED, scoped(of, on, taught, found), figures, seconds))
    tell(console, rows[-1:])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=FACTS, help="how many to teach")
    run(Console(), parser.parse_args().facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
