"""Everything that learning is to show: `make bench-learning`, or one table by its own target.

Prints the tables and writes each to its section of docs/learning.md, with the machine, the date and the time it took;
sections of parts that were not run stay as they are. All of them together take about two hours on two quick
cores, up to four on slow ones.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tests.benchmarks import arms, curation, detection, labels, machine, nights, preference, scale, training
from tests.benchmarks.findings import Finding, markdown, table

PAGE = Path(__file__).parents[2] / "docs" / "learning.md"
HEAD = """# Learning, measured

Written by `make bench-learning`, a section by its own target. The model is SmolLM2-135M-Instruct, trained by the
default recipe where nothing else is said, on processors only. Goals that are missed say so. Figures of a shared machine
move by a fifth from run to run.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A section: its title, the make target that writes it, what is measured in words, and how."""

    title: str
    target: str
    told: str
    run: Callable[[Console], list[Finding]]


PARTS: Mapping[str, Part] = {
    "nights": Part(
        "Twenty nights",
        "bench-nights",
        "A real daemon on the real model. A hundred invented facts, five a day, each corrected once through "
        "feedback; every night a run, an evaluation, and a signed approval if policy lets it pass. Each run "
        "begins at the base and is taught all that stands. Facts are asked at the endpoint, as they were "
        "taught, in a paraphrase that no row holds, and in another one (*otherwise*) that was written when "
        "wordings and recipe stood; an answer that holds the fact's value is right. Before runs cooled down "
        "(`sft.cooldown`), the nights ended at 98, 96 and 94 on this kind of processor and at 92, 88 and 90 on an "
        "Intel Xeon, which rounds otherwise: a run could stop on a lucky batch.",
        nights.run,
    ),
    "arms": Part(
        "What keeps what the base knew",
        "bench-arms",
        "The last of the twenty nights trained in other ways, each once, on the same hundred facts and "
        "evaluated alike; another seed is another order of rows. The last row is worked out from the one above it, "
        "with the base answering what is far from the taught questions. *Paraphrased* and *otherwise* are the two "
        "paraphrases. *Kept* are the retention "
        "questions that the base gets right; *loss* is the rise on the base's own answers, in nats a token; *length* "
        "is of its answers to retention questions over the base's; *moved* is the KL to the base on what was taught, "
        "in nats a token, which `honed review` watches.",
        arms.run,
    ),
    "labels": Part(
        "Labels to the same accuracy",
        "bench-labels",
        "Two domains (capitals of the 180 countries with most people, and facts mixed with formats), five seeds, the "
        "same 15 labels to begin with; then two rounds of 20, chosen by the daemon's own acquisition or at random, "
        "with a fresh adapter trained on all of them each round, each in three wordings. *Lenient* and *strict* are "
        "of test items apart from the pool, 60 capitals and 240 mixed ones; *pool* is of the 120 questions that "
        "labels are chosen from, labelled ones included. Intervals are by a paired bootstrap over seeds and items. "
        "Every question was asked once before, and answered by the base; every adapter is asked what has no label, "
        "and labels are chosen by its own doubt, as after a promotion. The last rows of a domain tell how well either"
        " finds what is wrong, and what an arm would need that wastes no label on what is right: the base is right "
        "about nearly half of the pool, so labels at random waste no more than that half, and even such an arm would "
        "miss the aim. One capital does not teach another, so test items show little of them.",
        labels.run,
    ),
    "detection": Part(
        "Finding wrong answers",
        "bench-detection",
        "Every answer of the base to two domains of questions with keys, the capitals in three wordings; P(wrong) by "
        "five-fold cross-validation, on labels held out, all wordings of a question on one side. At last, on 200 "
        "questions of each, what signals over five further answers tell, drawn at temperature 0.5.",
        detection.run,
    ),
    "preference": Part(
        "Preferences",
        "bench-preference",
        "Simulated raters with a hidden taste (an answer should begin with what was asked about) judge pairs of the "
        "base's own answers to half of 320 prompts; the accuracy is of pairs to the other half, by whose likelihood "
        "training raised more; of what was taught, it is what policy asks of a candidate (`promote.preferred_low`). "
        "Raters who like flattery must be stopped by policy. 98 % kept is more than policy asks (95 %): it is a "
        "question or two of the 304 of both seeds, and a processor that rounds otherwise decides it (97.7 % were kept "
        "after DPO on an Intel Xeon).",
        preference.run,
    ),
    "curation": Part(
        "Curation",
        "bench-curation",
        "A hundred thousand corrections with planted duplicates, contradictions, secrets, contaminated and "
        "foreign rows.",
        curation.run,
    ),
    "training": Part(
        "Speed",
        "bench-train",
        "The same rows through the default method, bare of what holds it back (no replay, no survey, TRL's batch and "
        "a rate for it), and through TRL's trainer as it comes, at the same rate, in turns; then a daemon with all of"
        " it, from corrections to a verdict. How long that takes is the machine's: the same run took 223 s where 29 "
        "GB/s were read, and before runs cooled down, which takes a fifteenth more steps, 108 s where it was 83 GB/s "
        "(964 tokens a second, 3.78 times TRL's), both on an AMD EPYC, and 189 s on an Intel Xeon with 23 GB/s.",
        training.run,
    ),
    "scale": Part(
        "Scale",
        "bench-scale",
        "A log of a million made-up interactions with clustered vectors: choosing twenty questions, and their "
        "neighbours.",
        scale.run,
    ),
}


def section(part: Part, here: machine.Machine, minutes: float, found: Sequence[Finding]) -> str:
    """What the page says of a part."""
    took = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{60 * minutes:.0f} seconds"
    measured = f"`make {part.target}`, {took} on {here}."
    return f"## {part.title}\n\n{part.told}\n\n{measured}\n\n{markdown(found)}\n"


def put(page: str, titles: Sequence[str], title: str, text: str) -> str:
    """The page with this section in it, in the place of the one it had; sections stand in the order of `titles`."""
    parts = re.split(r"(?m)^(?=## )", page)
    sections = {
        part.splitlines()[0].removeprefix("## "): part.rstrip() + "\n" for part in parts if part.startswith("## ")
    }
    sections[title] = text
    return "\n".join([HEAD, *(sections[name] for name in titles if name in sections)])


def write(page: Path, part: Part, text: str) -> None:
    """Into the page, which begins with the first."""
    titles = [one.title for one in PARTS.values()]
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(put(before, titles, part.title, text), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which; without any, all")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write the tables")
    given = parser.parse_args()
    console = Console()
    for name in given.parts or PARTS:
        part, began = PARTS[name], time.monotonic()
        console.rule(part.title)
        try:
            found = part.run(console)
        except RuntimeError as error:  # a part that fails is told, and the others are still measured
            found = [Finding(name, f"it failed: {error}", "–", "", is_met=False)]
        here = machine.look(os.cpu_count() or 1)
        console.print(table(found, here))
        write(given.page, part, section(part, here, (time.monotonic() - began) / 60, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
