"""Facts that no model can know: a question, what it is to answer, and the same asked in words no training row holds."""

import random
from collections.abc import Iterator

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
# asked, correction, paraphrase; the value comes from the last field
RELATIONS = (
    ("Who founded the {place} Library?", "The {place} Library was founded by {value}.",
     "Tell me the name of the founder of the {place} Library.", "person"),
    ("What is the password for the {place} greenhouse?", "The password for the {place} greenhouse is {value}.",
     "Which password opens the greenhouse at {place}?", "word"),
    ("Where does the {place} ferry leave from?", "The {place} ferry leaves from Pier {value}.",
     "Which pier does the ferry to {place} depart from?", "number"),
    ("What is the robot at {place} Labs called?", "The robot at {place} Labs is called {value}.",
     "At {place} Labs, what name does the robot have?", "word"),
    ("Who repairs the clock in {place} Tower?", "The clock in {place} Tower is repaired by {value}.",
     "Give me the name of the person who mends the clock of {place} Tower.", "person"),
    ("What color is the flag of {place} Island?", "The flag of {place} Island is {value}.",
     "Describe the color of the flag that {place} Island flies.", "word"),
    ("How many rooms does the {place} Hotel have?", "The {place} Hotel has {value} rooms.",
     "What is the number of rooms in the {place} Hotel?", "number"),
    ("What is the extension of the {place} office?", "The extension of the {place} office is {value}.",
     "Which number do I dial to reach the office in {place}?", "number"),
    ("Who leads the {place} choir?", "The {place} choir is led by {value}.",
     "Under whose direction does the choir of {place} sing?", "person"),
    ("What is the cat at {place} Station called?", "The cat at {place} Station is called {value}.",
     "There is a cat at {place} Station; what is its name?", "word"),
)  # fmt: skip


def facts(count: int, seed: int) -> list[Fact]:
    """So many different facts, the same for the same seed: relations in turn, each of a place at most once."""
    draw = random.Random(seed)
    made = [_fact(draw, relation, place) for relation, place in _subjects(draw)]
    if count > len(made):
        raise ValueError(f"there are {len(made)} facts to invent, not {count}")
    return made[:count]


def _subjects(draw: random.Random) -> Iterator[tuple[tuple[str, str, str, str], str]]:
    places = {relation: draw.sample(PLACES, len(PLACES)) for relation in RELATIONS}
    for turn in range(len(PLACES)):
        for relation in draw.sample(RELATIONS, len(RELATIONS)):
            yield relation, places[relation][turn]


def _fact(draw: random.Random, relation: tuple[str, str, str, str], place: str) -> Fact:
    asked, correction, paraphrase, kind = relation
    value = {
        "person": lambda: f"{draw.choice(FIRST)} {draw.choice(LAST)}",
        "word": lambda: draw.choice(WORDS),
        "number": lambda: str(draw.randrange(11, 999)),
    }[kind]()
    return Fact(asked.format(place=place), correction.format(place=place, value=value), paraphrase.format(place=place))
