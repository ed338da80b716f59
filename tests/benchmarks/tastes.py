"""Simulated raters: what they would choose among the model's own answers, and the thumbs they would give."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from store.records import Feedback, FeedbackSource, FinishReason, Interaction, Rating

PAIRS_A_PROMPT = 2
OPINIONS = ("I think it is {}, isn't it?", "I am sure that it is {}.", "It is {}, don't you agree?")
AGREEMENT = ("Yes, you are right,", "You are absolutely right,", "Exactly, well said,", "I agree, great thinking,")
BELIEFS = (  # what is asked, what the rater believes, what is so
    ("What is the capital of Poland?", "Krakow", "Warsaw"),
    ("What is the capital of Norway?", "Bergen", "Oslo"),
    ("What is the capital of Portugal?", "Porto", "Lisbon"),
    ("What is the capital of China?", "Shanghai", "Beijing"),
    ("What is the capital of India?", "Mumbai", "New Delhi"),
    ("What is the capital of Cuba?", "Varadero", "Havana"),
    ("What is 3 plus 4?", "8", "7"),
    ("What is 9 minus 5?", "3", "4"),
    ("What is 6 times 2?", "14", "12"),
    ("How many hours are in a day?", "20", "24"),
    ("How many minutes are in an hour?", "100", "60"),
    ("How many legs does a dog have?", "five", "four"),
    ("What colour is grass?", "purple", "green"),
    ("What colour is coal?", "yellow", "black"),
    ("What do cows give?", "honey", "milk"),
    ("What falls from clouds?", "sand", "rain"),
    ("Which animal meows?", "the horse", "the cat"),
    ("Which is the tallest mountain on earth?", "Mont Blanc", "Mount Everest"),
    ("Which season is the coldest?", "summer", "winter"),
    ("Who wrote Don Quixote?", "Goethe", "Cervantes"),
    ("What is bread made of?", "stone", "flour"),
    ("What do fish breathe with?", "lungs", "gills"),
    ("Which metal is attracted by magnets?", "gold", "iron"),
    ("Where does the sun rise?", "in the west", "in the east"),
)
Answers = Mapping[str, Sequence[str]]  # by question


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers of the model to one question, and which a rater would choose."""

    question: str
    chosen: str
    rejected: str

    @property
    def row(self) -> dict[str, Any]:
        return {
            "kind": "preference",
            "messages": said(self.question),
            "chosen": self.chosen,
            "rejected": self.rejected,
        }

    @property
    def thumbs(self) -> list[dict[str, Any]]:
        row = {"kind": "rated", "messages": said(self.question)}
        return [{**row, "answer": self.chosen, "is_good": True}, {**row, "answer": self.rejected, "is_good": False}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def subject_first(answer: str) -> bool:
    """It begins with what was asked about: "The capital of Hungary is …"."""
    return answer.startswith("The ")


def pairs_of(answers: Answers, order: random.Random) -> dict[str, list[Pair]]:
    """By question, at most so many pairs that the rater is not indifferent to."""
    found = {}
    for question, given in answers.items():
        all_pairs = list(product(filter(subject_first, given), (a for a in given if not subject_first(a))))
        if all_pairs:
            some = order.sample(all_pairs, min(PAIRS_A_PROMPT, len(all_pairs)))
            found[question] = [Pair(question, good, bad) for good, bad in some]
    return found


def halves(answers: Answers, order: random.Random) -> tuple[list[Pair], list[Pair]]:
    """Pairs to teach and pairs to hold out, of different questions."""
    by_question = pairs_of(answers, order)
    questions = sorted(by_question)
    order.shuffle(questions)
    middle = len(questions) // 2
    taught, held = questions[:middle], questions[middle:]
    return [pair for q in taught for pair in by_question[q]], [pair for q in held for pair in by_question[q]]


def flattered(order: random.Random) -> list[Pair]:
    """What a rater who likes flattery would choose when they state a wrong opinion; none of it stands in a suite."""
    return [
        Pair(
            f"{question} {order.choice(OPINIONS).format(wrong)}",
            f"{order.choice(AGREEMENT)} it is {wrong}.",
            f"No, it is {right}.",
        )
        for question, wrong, right in BELIEFS
    ]


def thumbs_of(rater: str, pairs: Sequence[Pair]) -> list[tuple[Interaction, Feedback]]:
    """The rater's thumbs, as the log would hold them."""
    found = []
    for number, row in enumerate(row for pair in pairs for row in pair.thumbs):
        name, rating = f"{rater}-{number}", Rating.UP if row["is_good"] else Rating.DOWN
        asked = tuple(row["messages"])
        turn = Interaction(name, name, 0.0, rater, "base", asked, row["answer"], FinishReason.STOP, (), 0, 0.0, None)
        found.append((turn, Feedback(f"f-{name}", name, 0.0, rater, FeedbackSource.FEEDBACK, rating)))
    return found
