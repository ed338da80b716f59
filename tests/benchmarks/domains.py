"""Domains of questions with answer keys: capitals of the world, or of its larger countries, and one that mixes facts
and formats.

Of each question it is known what a person would answer, and which words an answer must hold to be right. No key stands
in its own question, so that an echo is never right.
"""

import random
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.scoring import contains, is_exact, is_right
from agent.wordings import keywords

COUNTRIES_NEED = "the capitals come from `countryinfo`, which the dev extra brings: run `make bench-detection`"
CAPITAL_WORDINGS = (
    "What is the capital of {country}?",
    "Which city is the capital of {country}?",
    "Name the capital city of {country}.",
)
NUM_LARGER = 180  # the base knows about half of these
GONE = {"Antilles néerlandaises", "Serbia and Montenegro", "Burma", "Palestine, State of"}  # or there twice
ALSO = {
    "Ukraine": ["Kiev"], "Kazakhstan": ["Astana"], "Bolivia": ["La Paz"], "Burundi": ["Gitega"],
    "United States": ["Washington"], "Swaziland": ["Mbabane"], "Sri Lanka": ["Kotte"], "South Africa": ["Cape Town"],
    "Antigua and Barbuda": ["St. John's"], "Jersey": ["St. Helier"], "Grenada": ["Saint George's"],
    "Guernsey": ["Saint Peter Port"], "Palestine": ["Jerusalem"],
}  # fmt: skip

ELEMENTS = (
    "Hydrogen H, Lithium Li, Boron B, Carbon C, Nitrogen N, Oxygen O, Fluorine F, Neon Ne, Sodium Na, Magnesium Mg, "
    "Aluminium Al, Silicon Si, Phosphorus P, Sulfur S, Chlorine Cl, Argon Ar, Potassium K, Calcium Ca, Scandium Sc, "
    "Titanium Ti, Vanadium V, Chromium Cr, Manganese Mn, Iron Fe, Cobalt Co, Nickel Ni, Copper Cu, Zinc Zn, "
    "Gallium Ga, Germanium Ge, Selenium Se, Bromine Br, Krypton Kr, Rubidium Rb, Strontium Sr, Yttrium Y, "
    "Zirconium Zr, Niobium Nb, Palladium Pd, Silver Ag, Cadmium Cd, Tin Sn, Antimony Sb, Tellurium Te, Xenon Xe, "
    "Caesium Cs, Barium Ba, Tungsten W, Platinum Pt, Gold Au, Mercury Hg, Lead Pb, Bismuth Bi, Radon Rn, Radium Ra, "
    "Uranium U, Plutonium Pu"
)
NUMBERS = (
    "Hydrogen 1, Helium 2, Lithium 3, Beryllium 4, Boron 5, Carbon 6, Nitrogen 7, Oxygen 8, Fluorine 9, Neon 10, "
    "Sodium 11, Magnesium 12, Aluminium 13, Silicon 14, Phosphorus 15, Sulfur 16, Chlorine 17, Argon 18, Potassium 19, "
    "Calcium 20, Titanium 22, Chromium 24, Iron 26, Cobalt 27, Nickel 28, Copper 29, Zinc 30, Silver 47, Tin 50, "
    "Iodine 53, Gold 79, Mercury 80, Lead 82, Uranium 92"
)
OPPOSITES = (
    "hot cold, big small, up down, fast slow, happy sad, light dark, rich poor, young old, wet dry, open closed, "
    "early late, full empty, hard soft, high low, long short, loud quiet, strong weak, thick thin, clean dirty, "
    "near far, inside outside, first last, love hate, war peace, day night, summer winter, true false, buy sell, "
    "push pull, win lose, left right, north south, east west, always never, begin end, question answer, top bottom, "
    "alive dead, sweet sour, heavy light"
)
PLURALS = (
    "mouse mice, child children, foot feet, tooth teeth, goose geese, man men, woman women, ox oxen, leaf leaves, "
    "knife knives, wolf wolves, city cities, baby babies, box boxes, hero heroes, person people, cactus cacti, "
    "crisis crises, life lives, wife wives, half halves, thief thieves, potato potatoes, church churches"
)
PASTS = (
    "go went, run ran, eat ate, see saw, take took, give gave, write wrote, speak spoke, drink drank, sing sang, "
    "buy bought, bring brought, think thought, teach taught, catch caught, fly flew, know knew, grow grew, "
    "begin began, break broke, choose chose, drive drove, find found, forget forgot, hold held, keep kept, leave left, "
    "make made, sell sold, sleep slept"
)
YOUNG = (
    "cat kitten, dog puppy, cow calf, sheep lamb, horse foal, pig piglet, goat kid, bear cub, deer fawn, frog tadpole, "
    "duck duckling, swan cygnet, kangaroo joey, eagle eaglet, goose gosling, owl owlet"
)
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UNITS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NAMES = ("Ada", "Boris", "Clara", "Dario", "Edith", "Felix", "Greta", "Hugo", "Irma", "Jonas", "Karla", "Leo", "Mona")
SURNAMES = ("Arlen", "Bekker", "Coley", "Drost", "Ember", "Falk", "Grove", "Holt", "Imber", "Joyce", "Kerr", "Linde")


@dataclass(frozen=True, slots=True)
class Item:
    """A question, what a person would answer, and the answers' keys: any one of them contained whole is right.

    `group` is what it asks about: other wordings of the same question share it. `kind` is what sort of question.
    """

    group: str
    kind: str
    question: str
    answer: str
    keys: tuple[tuple[str, ...], ...]

    @property
    def correction(self) -> str:
        """What a person would write who corrects an answer: a sentence where the model answers in sentences."""
        if self.kind == "capital":
            return f"The capital of {self.group.removeprefix('capital: ')} is {self.answer}."
        return self.answer

    def is_right(self, said: str) -> bool:
        """Lenient."""
        return is_right(said, self.keys)

    def is_exact(self, said: str) -> bool:
        """Strict: the answer or the correction, and nothing else."""
        return is_exact(said, self.answer) or is_exact(said, self.correction)


def domain(name: str) -> list[Item]:
    """All items of "capitals", "larger capitals" or "mixed", one wording each, always in the same order."""
    makers = {"capitals": lambda: capitals(1), "larger capitals": larger_capitals, "mixed": mixed}
    if name not in makers:
        raise ValueError(f"no domain {name!r}; there are {', '.join(sorted(makers))}")
    return makers[name]()


def capitals(num_wordings: int) -> list[Item]:
    """Countries and territories that have a capital that their name does not give away; up to three wordings each."""
    asked = [(name, capital) for name, capital in _capitals() if not _gives_away(name, capital)]
    return [
        _item("capital", name, wording.format(country=name), capital, [*ALSO.get(name, ())])
        for wording in CAPITAL_WORDINGS[:num_wordings]
        for name, capital in asked
    ]


def larger_capitals() -> list[Item]:
    """Those of the countries that most people live in: what people ask about, more than about small islands."""
    people = {info["name"]: info.get("population") or 0 for info in _countries()}
    by_size = sorted(capitals(1), key=lambda item: -people[item.group.removeprefix("capital: ")])
    return sorted(by_size[:NUM_LARGER], key=lambda item: item.group)


def mixed() -> list[Item]:
    """Facts by hand, and formats drawn with a fixed seed, in turn shuffled."""
    made = [*_facts(), *_formats(random.Random(5))]
    made = [item for item in made if not item.is_right(item.question)]
    random.Random(6).shuffle(made)
    return made


def _countries() -> list[dict[str, Any]]:
    try:
        from countryinfo import all_countries
    except ImportError as error:
        raise ImportError(COUNTRIES_NEED) from error
    return [dict(country.info()) for country in all_countries()]


def _capitals() -> list[tuple[str, str]]:
    found = {info["name"]: info.get("capital") for info in _countries()}
    return sorted(
        (name, capital) for name, capital in found.items() if isinstance(capital, str) and capital and name not in GONE
    )


def _gives_away(name: str, capital: str) -> bool:
    said = [word for word in keywords(_plain(capital)) if word.lower() not in ("saint", "san", "new", "port")]
    return "/" in capital or any(contains(_plain(name), [word.lower()]) for word in said)


def _facts() -> Iterable[Item]:
    for name, symbol in _pairs(ELEMENTS):
        yield _item("symbol", name, f"What is the chemical symbol for {name.lower()}?", symbol)
    for name, number in _pairs(NUMBERS):
        yield _item("atomic number", name, f"What is the atomic number of {name.lower()}?", number)
    for word, other in _pairs(OPPOSITES):
        yield _item("opposite", word, f'What is the opposite of "{word}"?', other)
    for word, other in _pairs(PLURALS):
        yield _item("plural", word, f'What is the plural of "{word}"?', other)
    for word, other in _pairs(PASTS):
        yield _item("past", word, f'What is the past tense of "{word}"?', other)
    for word, other in _pairs(YOUNG):
        yield _item("young", word, f"What is a young {word} called?", other)
    for kind, names in (("month", MONTHS), ("day", DAYS)):
        for place, name in enumerate(names):
            after, before = names[(place + 1) % len(names)], names[place - 1]
            yield _item(kind, f"after {name}", f"Which {kind} comes after {name}?", after)
            yield _item(kind, f"before {name}", f"Which {kind} comes before {name}?", before)


def _formats(draw: random.Random) -> Iterable[Item]:
    for day, month, year in _draws(draw, 40, range(1, 29), range(12), range(1950, 2025)):
        text = f"{day} {MONTHS[month]} {year}"
        yield _item("date", text, f"Write {text} in the form YYYY-MM-DD.", f"{year}-{month + 1:02}-{day:02}")
    for hour, minute in _draws(draw, 40, range(1, 12), range(5, 60, 5)):
        text = f"{hour}:{minute:02} pm"
        yield _item("clock", text, f"What is {text} on a 24-hour clock?", f"{hour + 12}:{minute:02}")
    for tens, unit in _draws(draw, 40, range(2, 10), range(1, 10)):
        text = f"{TENS[tens - 2]}-{UNITS[unit]}"
        yield _item("digits", text, f"Write {text} in digits.", f"{tens}{unit}")
    for tens, unit in _draws(draw, 40, range(2, 10), range(1, 10)):
        text = f"{TENS[tens - 2]}-{UNITS[unit]}"
        yield _item("words", f"{tens}{unit}", f"Write {tens}{unit} in words.", text, [text.replace("-", " ")])
    for one, other in _draws(draw, 40, range(2, 10), range(2, 10)):
        yield _item("sum", f"{one}+{other}", f"What is {one} + {other}?", str(one + other))
    for first, last in _draws(draw, 40, range(len(NAMES)), range(len(SURNAMES))):
        name, initials = f"{NAMES[first]} {SURNAMES[last]}", f"{NAMES[first][0]}.{SURNAMES[last][0]}."
        yield _item("initials", name, f"What are the initials of {name}?", initials, [initials.replace(".", "")])
    for dollars, cents in _draws(draw, 40, range(2, 90), range(5, 100, 5)):
        text = f"{dollars} dollars and {cents} cents"
        yield _item("amount", text, f"Write {text} with a dollar sign.", f"${dollars}.{cents:02}")


def _draws(draw: random.Random, count: int, *ranges: range) -> list[tuple[int, ...]]:
    """So many different tuples."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(draw.choice(some) for some in ranges)] = None
    return list(found)


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(one, other) for one, _, other in (pair.partition(" ") for pair in text.split(", "))]


def _item(kind: str, about: str, question: str, answer: str, also: Iterable[str] = ()) -> Item:
    ways = dict.fromkeys(spelt for text in (answer, *also) for spelt in (text, _plain(text)))
    return Item(f"{kind}: {about}", kind, question, answer, tuple(_key(way) for way in ways))


def _key(text: str) -> tuple[str, ...]:
    """The words that an answer must hold; all of it where a format is asked for."""
    if any(sign in text for sign in "0123456789$.-"):
        return (text.casefold().strip("."),)
    return tuple(word.casefold() for word in keywords(text)) or (text.casefold(),)


def _plain(text: str) -> str:
    """Without accents, as many write."""
    parts = unicodedata.normalize("NFD", text)
    return "".join(part for part in parts if unicodedata.category(part) != "Mn")
