"""Does uncertainty tell wrong answers from right ones? `make bench-detection`

The real default model answers two domains greedily through the engine that would serve; an answer key judges. Every
signal's AUROC and AURC, the answer's length as control; then what `agent.detection` learns from judged answers, always
told of four fifths and asked about the rest, and how far its P(wrong) is off there.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from agent.answers import Traced
from agent.certainty import Judged, aurc, calibrate, ece
from agent.consistency import SAMPLED_SIGNALS, Sampled
from agent.detection import Example, learn
from agent.doubts import DRAWN, TEMPERATURE
from agent.uncertainty import DEFAULT_SIGNAL, SIGNALS, mean_entropy
from service.config import Settings
from tests.benchmarks.asking import ask, draw, served, settings, vectors
from tests.benchmarks.domains import Item, capitals, mixed
from tests.benchmarks.findings import Finding, at_least, at_most, tell

FOLDS = 5
SPLITS = range(5)  # the seeds of as many divisions into folds
RESAMPLES = 1000
NUM_WORDINGS = 3  # of the capitals: an ECE of 0.05 is less than chance makes of 229 answers
DRAWN_FOR = 200  # questions of a domain that are answered several times more
BUDGETS = (50, 100, 200, 400)
LEARNT, BY_TRACE = "P(wrong)", "P(wrong) by trace alone"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One way to tell: scores (S, N) under S divisions into folds, one row where nothing was learnt; P(wrong) (S, N)
    that follows from it, on answers that it had not been told of.
    """

    name: str
    scores: Floats
    probabilities: Floats

    def auroc(self, wrong: Floats, of: npt.NDArray[np.int64] | None = None) -> float:
        """Mean over the divisions; of some of the answers, or all."""
        of = np.arange(len(wrong)) if of is None else of
        return float(np.mean([auroc(row[of], wrong[of]) for row in self.scores]))

    def aurc(self, wrong: Floats) -> float:
        return float(np.mean([aurc(row, wrong) for row in self.scores]))

    def ece(self, wrong: Floats) -> float:
        return float(np.mean([ece(row, wrong) for row in self.probabilities]))


def scored(examples: Sequence[Example], groups: Sequence[str]) -> list[Scored]:
    """Every signal by name, calibrated alone; then what is learnt of several, with near questions and without. What is
    asked in several wordings is one of the `groups`, and never on both sides.
    """
    blind = [Example(one.tokens, None, one.is_wrong) for one in examples]
    found = [_by_signal(name, examples, groups) for name in SIGNALS]
    for name, some in ((BY_TRACE, blind), (LEARNT, examples)):
        rows = [held_out(some, folds(groups, seed)) for seed in SPLITS]
        found.append(Scored(name, np.array([scores for scores, _ in rows]), np.array([told for _, told in rows])))
    return found


def _by_signal(name: str, examples: Sequence[Example], groups: Sequence[str]) -> Scored:
    scores = [SIGNALS[name](one.tokens) for one in examples]
    judged = [Judged(score or 0.0, len(one.tokens), one.is_wrong) for score, one in zip(scores, examples, strict=True)]
    rows = [_calibrated(judged, folds(groups, seed)) for seed in SPLITS]
    return Scored(name, np.array([[one.uncertainty for one in judged]]), np.array(rows))


def folds(groups: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Which fold each one is in; all of a group in the same."""
    names, number = np.unique(list(groups), return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(names)) % FOLDS)[number], dtype=np.int64)


def held_out(examples: Sequence[Example], fold: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The score and P(wrong) of each, learnt from the other folds alone."""
    scores, told = np.empty(len(examples)), np.empty(len(examples))
    for number in range(FOLDS):
        known = learn([one for one, of in zip(examples, fold, strict=True) if of != number])
        if known is None:
            raise ValueError(f"nothing to learn from outside fold {number}; ask more questions")
        scores[fold == number] = known.detector.scores(
            [one for one, of in zip(examples, fold, strict=True) if of == number]
        )
        told[fold == number] = [known.calibration.probability(score) for score in scores[fold == number]]
    return scores, told


def _calibrated(judged: Sequence[Judged], fold: npt.NDArray[np.int64]) -> Floats:
    found = np.empty(len(judged))
    for number in range(FOLDS):
        known = calibrate([one for one, of in zip(judged, fold, strict=True) if of != number])
        if known is None:
            raise ValueError(f"nothing to calibrate by outside fold {number}; ask more questions")
        for place in np.flatnonzero(fold == number):
            found[place] = known.probability(judged[int(place)].uncertainty)
    return found


def auroc(scores: Floats, wrong: Floats) -> float:
    """How often a wrong answer scores higher than a right one, equals counting half; NaN without both kinds."""
    num_wrong = wrong.sum()
    pairs = num_wrong * (len(wrong) - num_wrong)
    above = rankdata(scores)[wrong > 0].sum() - num_wrong * (num_wrong + 1) / 2
    return float(above / pairs) if pairs else float("nan")


def interval(wrong: Floats, one: Scored, other: Scored | None = None) -> tuple[float, float]:
    """95 % bootstrap interval over the answers of the AUROC, or of how far it is above another's."""
    draw = np.random.default_rng(1)
    found: list[float] = []
    while len(found) < RESAMPLES:
        some = draw.integers(len(wrong), size=len(wrong))
        if 0 < wrong[some].sum() < len(some):
            found.append(one.auroc(wrong, some) - (other.auroc(wrong, some) if other else 0.0))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def unavoidable_ece(probabilities: Floats) -> float:
    """What chance alone would show if these probabilities (S, N) were true: mean over drawn outcomes."""
    draw = np.random.default_rng(2)
    drawn = [(row, (draw.random(len(row)) < row).astype(np.float64)) for row in probabilities for _ in range(40)]
    return float(np.mean([ece(row, outcome) for row, outcome in drawn]))


def by_budget(point: str, examples: Sequence[Example], groups: Sequence[str]) -> list[Finding]:
    """The AUROC on other groups after so many judged answers, drawn at random."""
    found = []
    for budget in (budget for budget in BUDGETS if budget <= len(examples) * 0.8):
        figures = []
        for seed in SPLITS:
            order = np.random.default_rng(seed).permutation(len(examples))
            seen = {groups[place] for place in order[:budget]}
            known = learn([examples[place] for place in order[:budget]])
            rest = [examples[place] for place in order[budget:] if groups[place] not in seen]
            if known:
                wrong = np.array([one.is_wrong for one in rest], dtype=np.float64)
                figures.append(auroc(known.detector.scores(rest), wrong))
        found.append(Finding(point, f"AUROC after {budget} judged answers", f"{np.mean(figures):.2f}"))
    return found


def findings(point: str, examples: Sequence[Example], groups: Sequence[str], console: Console) -> list[Finding]:
    """The figures of one domain, and its table on the terminal."""
    wrong = np.array([one.is_wrong for one in examples], dtype=np.float64)
    ways = {one.name: one for one in scored(examples, groups)}
    console.print(table(f"{point}: {wrong.sum():.0f} of {len(wrong)} answers are wrong", list(ways.values()), wrong))
    learnt, control, usual = ways[LEARNT], ways["length"], ways[DEFAULT_SIGNAL]
    mean = ways[mean_entropy.__name__]
    (above, _), (usual_above, _) = interval(wrong, learnt, control), interval(wrong, usual, control)
    low, high = interval(wrong, usual, mean)
    return [
        at_least(point, f"AUROC of {DEFAULT_SIGNAL}", usual.auroc(wrong), 0.85),
        at_least(point, f"{DEFAULT_SIGNAL} above the answer's length, lower end of 95 %", usual_above, 0),
        Finding(point, f"{DEFAULT_SIGNAL} above {mean.name}, 95 %", f"{low:.3f} – {high:.3f}"),
        at_least(point, f"AUROC of {LEARNT}, held out", learnt.auroc(wrong), 0.85),
        at_least(point, f"{LEARNT} above the answer's length, lower end of 95 %", above, 0),
        Finding(point, "AUROC of the answer's length", f"{control.auroc(wrong):.2f}"),
        at_most(point, f"ECE of {LEARNT}, held out", learnt.ece(wrong), 0.05),
        Finding(point, "ECE that a perfect one would show by chance", f"{unavoidable_ece(learnt.probabilities):.2f}"),
        *by_budget(point, examples, groups),
    ]


def table(title: str, ways: Sequence[Scored], wrong: Floats) -> Table:
    shown = Table(title=title, title_justify="left")
    for name in ("signal", "AUROC", "95 %", "AURC", "ECE, calibrated, held out"):
        shown.add_column(name)
    for one in ways:
        low, high = interval(wrong, one)
        figures = (
            f"{one.auroc(wrong):.3f}",
            f"{low:.2f} – {high:.2f}",
            f"{one.aurc(wrong):.3f}",
            f"{one.ece(wrong):.3f}",
        )
        shown.add_row(one.name, *figures)
    return shown


def run(console: Console) -> list[Finding]:
    domains = {"capitals": capitals(NUM_WORDINGS), "mixed": mixed()}
    items: list[Item] = [item for some in domains.values() for item in some]
    console.print(f"asking {len(items)} questions")
    real = settings()
    answers = ask(served(real), None, [item.question for item in items])
    traits = vectors(real, [item.question for item in items])
    examples = [
        Example(answer.tokens, vector, not item.is_right(answer.text))
        for item, answer, vector in zip(items, answers, traits, strict=True)
    ]
    split = len(domains["capitals"])
    found = []
    for name, of in (("capitals", slice(split)), ("mixed", slice(split, None)), ("both", slice(None))):
        exact = [item.is_exact(answer.text) for item, answer in zip(items[of], answers[of], strict=True)]
        found.append(Finding(name, "right, lenient", f"{1 - np.mean([one.is_wrong for one in examples[of]]):.2f}"))
        found.append(Finding(name, "right, strict: the answer and nothing else", f"{np.mean(exact):.2f}"))
        found += findings(name, examples[of], [item.group for item in items[of]], console)
    for name, places in (("capitals", range(split)), ("mixed", range(split, len(items)))):
        some = np.random.default_rng(3).permutation(places)[:DRAWN_FOR]
        found += by_drawing(name, real, *([column[place] for place in some] for column in (items, answers, examples)))
    return found


def by_drawing(
    point: str, of: Settings, items: Sequence[Item], answers: Sequence[Traced], examples: Sequence[Example]
) -> list[Finding]:
    """What signals over drawn answers tell, beside the default signal on the same questions."""
    drawn = draw(served(of), [item.question for item in items], DRAWN, TEMPERATURE)
    told = [Sampled(answer.text, some, vectors(of, some)) for answer, some in zip(answers, drawn, strict=True)]
    wrong = np.array([one.is_wrong for one in examples], dtype=np.float64)
    usual = np.array([SIGNALS[DEFAULT_SIGNAL](one.tokens) or 0.0 for one in examples])
    scores = {DEFAULT_SIGNAL: usual} | {
        f"{name}, {DRAWN} drawn answers": np.array([signal(one) for one in told])
        for name, signal in SAMPLED_SIGNALS.items()
    }
    return [
        Finding(point, f"AUROC of {name}, on {len(wrong)} questions", f"{auroc(score, wrong):.2f}")
        for name, score in scores.items()
    ]


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
