"""Facts that no model can know: a question, what it is to answer, and the same asked in words no training row holds.

Wordings and recipe were chosen with the first paraphrase in sight; the second was written when they stood.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from agent.scoring import contains, normalise
from service.demo import Fact

PLACES = (
    "Alder", "Brack", "Corvel", "Dunmere", "Elsing", "Farrow", "Gantry", "Hollin", "Istrel", "Jarrow", "Keld", "Lorne",
    "Marsk", "Nettle", "Orrin", "Pellam", "Quarle", "Ravel", "Stroma", "Tamsel", "Ulver", "Vessen", "Wexcombe", "Yarn",
)  # fmt: skip
FIRST = ("Ada", "Boris", "Clara", "Dario", "Edith", "Felix", "Greta", "Hugo", "Irma", "Jonas", "Karla", "Leo", "Mona")
LAST = (
    "Arlen",
    "Bekker",
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
    "Moss",
)
WORDS = ("amber", "basil", "cobalt", "dahlia", "ember", "fennel", "garnet", "hazel", "indigo", "juniper", "kelp",
         "lilac", "maple", "nutmeg", "ochre", "pepper", "quartz", "russet", "saffron", "thistle", "umber")  # fmt: skip
# asked, correction, two paraphrases; the value comes from the last field
RELATIONS = (
    ("Who founded the {place} Library?", "The {place} Library was founded by {value}.",
     "Tell me the name of the founder of the {place} Library.",
     "Do you know who set up the {place} Library?", "person"),
    ("What is the password for the {place} greenhouse?", "The password for the {place} greenhouse is {value}.",
     "Which password opens the greenhouse at {place}?",
     "I am at the {place} greenhouse. What is the password?", "word"),
    ("Where does the {place} ferry leave from?", "The {place} ferry leaves from Pier {value}.",
     "Which pier does the ferry to {place} depart from?",
     "Where do I board the {place} ferry?", "number"),
    ("What is the robot at {place} Labs called?", "The robot at {place} Labs is called {value}.",
     "At {place} Labs, what name does the robot have?",
     "What is the name of the robot that works at {place} Labs?", "word"),
    ("Who repairs the clock in {place} Tower?", "The clock in {place} Tower is repaired by {value}.",
     "Give me the name of the person who mends the clock of {place} Tower.",
     "Who looks after the clock in {place} Tower when it breaks?", "person"),
    ("What color is the flag of {place} Island?", "The flag of {place} Island is {value}.",
     "Describe the color of the flag that {place} Island flies.",
     "The flag of {place} Island: what color is it?", "word"),
    ("How many rooms does the {place} Hotel have?", "The {place} Hotel has {value} rooms.",
     "What is the number of rooms in the {place} Hotel?",
     "How many rooms can I choose from at the {place} Hotel?", "number"),
    ("What is the extension of the {place} office?", "The extension of the {place} office is {value}.",
     "Which number do I dial to reach the office in {place}?",
     "How do I reach the {place} office by phone? I need the extension.", "number"),
    ("Who leads the {place} choir?", "The {place} choir is led by {value}.",
     "Under whose direction does the choir of {place} sing?",
     "Who conducts the choir of {place}?", "person"),
    ("What is the cat at {place} Station called?", "The cat at {place} Station is called {value}.",
     "There is a cat at {place} Station; what is its name?",
     "How is the cat of {place} Station named?", "word"),
)  # fmt: skip
Relation = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Invented(Fact):
    """A fact whose `value` alone makes an answer right; `other` is a second paraphrase."""

    other: str
    value: str

    def is_known(self, answer: str) -> bool:
        return contains(answer, normalise(self.value).split())


def facts(count: int, seed: int) -> list[Invented]:
    """So many different facts, the same for the same seed: relations in turn, each of a place at most once."""
    draw = random.Random(seed)
    made = [_fact(draw, relation, place) for relation, place in _subjects(draw)]
    if count > len(made):
        raise ValueError(f"there are {len(made)} facts to invent, not {count}")
    return made[:count]


def _subjects(draw: random.Random) -> Iterator[tuple[Relation, str]]:
    places = {relation: draw.sample(PLACES, len(PLACES)) for relation in RELATIONS}
    for turn in range(len(PLACES)):
        for relation in draw.sample(RELATIONS, len(RELATIONS)):
            yield relation, places[relation][turn]


def _fact(draw: random.Random, relation: Relation, place: str) -> Invented:
    *asked, kind = relation
    value = {
        "person": lambda: f"{draw.choice(FIRST)} {draw.choice(LAST)}",
        "word": lambda: draw.choice(WORDS),
        "number": lambda: str(draw.randrange(11, 999)),
    }[kind]()
    question, correction, paraphrase, other = (text.format(place=place, value=value) for text in asked)
    return Invented(question, correction, paraphrase, other, value)
