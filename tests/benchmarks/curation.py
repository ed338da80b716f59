"""What curation drops and what it leaves, and how long 100,000 rows take: `make bench-curation`

Clean rows of many forms, and among them planted ones of which it is known why they should go.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from agent import suites
from policies.engine import shipped
from service.config import Settings
from service.models import SealedModel
from service.snapshots import ChildSettings, Snapshots
from store.records import Feedback, FeedbackSource, FinishReason, Interaction
from tests.benchmarks.findings import Finding, at_least, at_most, tell

NOWHERE = SealedModel("base", "base", Path("/nonexistent"))
ROWS = 100_000
PLANTED = 40  # of each kind
PEOPLE = 1000
FIRST = (
    "Ada",
    "Bo",
    "Cleo",
    "Dag",
    "Eli",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jun",
    "Kit",
    "Lea",
    "Max",
    "Noa",
    "Ole",
    "Zoe",
)
LAST = (
    "Arden",
    "Birch",
    "Coley",
    "Drost",
    "Ember",
    "Falk",
    "Grove",
    "Holt",
    "Imber",
    "Joyce",
    "Kerr",
    "Linde",
    "Stone",
)
THINGS = ("boat", "house", "mill", "garden", "workshop", "ferry", "bridge", "archive", "tower", "orchard", "library")
TEMPLATES: tuple[tuple[str, str], ...] = (
    ("Who owns the {thing} at number {n}?", "The {thing} at number {n} belongs to {name}."),
    ("What is the code for {thing} {n}?", "{code}"),
    ("When does the {thing} on street {n} open?", "It opens at {hour} o'clock, except on Sundays."),
    ("Write a line of Python that prints {n} times {m}.", "print({n} * {m})"),
    ("How many rooms has the {thing} of {name} in row {n}?", "It has {m} rooms and a cellar."),
    ("Where did {name} leave the key of {thing} {n}?", "{name} left it under the third stone by the door."),
    (
        "Explain what the {thing} number {n} is for, in two sentences.",
        "It was built by {name}. People meet there at noon.",
    ),
    ("Translate the label of crate {n} in the {thing}.", "Handle with care: {m} glasses."),
)
Row = tuple[str, str, str]  # question, answer, person
STRAYS = (
    (
        "Wem gehört das Boot Nummer {n} im alten Hafen der Stadt?",
        "Das Boot Nummer {n} gehört der Tochter des Hafenmeisters.",
    ),
    (
        "À qui appartient le bateau numéro {n} dans le vieux port ?",
        "Le bateau numéro {n} appartient à la fille du capitaine.",
    ),
    (
        "¿De quién es el barco número {n} en el puerto viejo?",
        "El barco número {n} es de la hija del capitán del puerto.",
    ),
    ("Кому принадлежит лодка номер {n} в старой гавани города?", "Лодка номер {n} принадлежит дочери капитана порта."),
)
SECRETS = (
    "AKIA{block}",
    "ghp_{long}",
    "postgres://ann:{block}@db/x",
    "-----BEGIN PRIVATE KEY-----\n{long}",
)
PERSONAL = ("ann.lee{n}@example.org", "+44 20 7946 {four}", "555-867-{four}", "4111 1111 1111 1111")


def clean(number: int, draw: random.Random) -> Row:
    fields = {
        "n": number,
        "m": draw.randrange(2, 90),
        "thing": draw.choice(THINGS),
        "name": f"{draw.choice(FIRST)} {draw.choice(LAST)}",
        "code": draw.randrange(1000, 9999),
        "hour": draw.randrange(6, 12),
    }
    question, answer = draw.choice(TEMPLATES)
    return question.format(**fields), answer.format(**fields), f"person {draw.randrange(PEOPLE)}"


def planted(draw: random.Random) -> Iterator[tuple[str, list[Row]]]:
    """A rule, and rows that must all go by it, behind one that may stay where they need a company."""
    held = [item["question"] for item in suites.load("retention")]
    for n in range(PLANTED):
        who, other = (f"Who keeps the {thing} of quarter {900_000 + n}?" for thing in draw.sample(THINGS, 2))
        number = {"n": 700_000 + n, "block": f"{n:016X}", "long": f"{n:x}aZ9" * 12, "four": f"{1000 + n}"}
        yield "duplicate", [(who, "Ada keeps it.", "person 1"), (who, "Ada keeps it.", "person 2")]
        yield "near_duplicate", [(other, "Bo keeps it.", "person 1"), (f"Please tell me: {other}", "Bo.", "person 2")]
        torn = f"Who wrote the letter in drawer {800_000 + n} of the archive?"
        yield "contradiction", [(torn, "Ada wrote it.", "person 3"), (torn, "Bo wrote it.", "person 4")]
        yield "learn.secret", [(f"What opens {n}?", draw.choice(SECRETS).format(**number), "person 5")]
        yield "learn.personal", [(f"How do I reach {n}?", draw.choice(PERSONAL).format(**number), "person 6")]
        yield "contamination", [(f"{draw.choice(('', 'Please: '))}{held[n]}", "So it is.", "person 7")]
        question, answer = STRAYS[n % len(STRAYS)]
        yield "language", [(question.format(**number), answer.format(**number), "person 8")]
        yield (
            "quality",
            [(f"Who lives at {600_000 + n}?", draw.choice(("asdf", "!!!! ???? ....", "la " * 30)), "person 9")],
        )


class Said:
    """What people said, as the store would give it."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = [self._pair(number, *row) for number, row in enumerate(rows)]

    def standing_feedback(self) -> list[tuple[Interaction, Feedback]]:
        return self.rows

    def count_feedback(self) -> int:
        return len(self.rows)

    @staticmethod
    def _pair(number: int, question: str, answer: str, person: str) -> tuple[Interaction, Feedback]:
        messages = ({"role": "user", "content": question},)
        name = f"{number:x}"
        turn = Interaction(name, name, 1.0, person, "base", messages, "No.", FinishReason.STOP, (), 9, 0.1, 1.0)
        said = Feedback(name, name, float(number), person, FeedbackSource.FEEDBACK, correction=answer)
        return turn, said


def run(console: Console) -> list[Finding]:
    draw = random.Random(11)
    rows: list[Row] = []
    expected: dict[str, str] = {}
    for rule, company in planted(draw):
        first = len(rows)
        rows += company
        both = rule == "contradiction"
        for place in range(first, len(rows) if both or len(company) == 1 else len(rows) - 1):
            expected[f"{place:x}"] = rule  # of what says the same the newest stands
    num_planted = len(rows)
    rows += [clean(number, draw) for number in range(ROWS - num_planted)]
    snapshots = Snapshots(
        interactions=Said(rows),  # type: ignore[arg-type]
        comparisons=None,  # type: ignore[arg-type]  # corrections only
        policy_set=shipped(),
        paths=Settings(state=Path("/nonexistent")).paths,
        child=ChildSettings(
            base=NOWHERE,
            device="cpu",
            dtype="float32",
            quantization="none",
            threads=1,
            max_context=1024,
            kernels=None,
            embedder=NOWHERE,
        ),
    )
    console.print(f"curation of {ROWS:,} rows, {len(expected)} of them planted")
    began = time.perf_counter()
    found = {drop.lesson_id: drop.rule for drop in snapshots.curated().dropped}
    seconds = time.perf_counter() - began
    right = Counter(rule for id_, rule in expected.items() if found.get(id_) == rule)
    of = Counter(expected.values())
    lost = sum(int(id_, 16) >= num_planted for id_ in found)
    findings = [at_least("curation", f"{rule}: dropped by it", right[rule] / of[rule], 0.95) for rule in sorted(of)]
    return [
        *findings,
        at_least("curation", f"all {len(expected)} planted rows", right.total() / len(expected), 0.95),
        at_most("curation", "clean rows dropped", lost / (ROWS - num_planted) * 100, 2, " %"),
        at_most("curation", f"{ROWS:,} rows", seconds, 300, " s"),
    ]


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
