"""Deterministic content rules: what in a text nobody should learn by heart. Pure.

Secrets by the form their issuers give them, and personal data by form and check digit. A shop's own address is a fact
that people may teach: mailboxes of a role (info@, support@, …) are not a person's.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

ROLES = frozenset(
    (
        *("billing", "contact", "hello", "help", "hr", "info", "jobs", "mail"),
        *("office", "orders", "press", "sales", "service", "support", "team"),
    )
)
IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "AO CV GW LY MZ PT ST"),
        (26, "DZ IR IS TR"),
        (27, "BI CF CG CM DJ FR GA GQ GR IT KM MC MG MR SM TD"),
        (28, "AL AZ BF BJ BY CI CY DO GT HN HU LB MA ML NE NI PL SN SV TG"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    )
    for country in countries.split()
}
CARD = re.compile(r"(?=2[2-7]|3[04-9]|[456])\d{13,19}")  # years are none
CARD_GROUPS = 5
CARD_GROUP = 4  # digits that each has but the last


class Kind(StrEnum):
    """What a finding is."""

    SECRET = "secret"  # noqa: S105 - a kind, not one
    PERSONAL = "personal"


@dataclass(frozen=True, slots=True)
class ContentRule:
    """Text that matches, and passes the check where there is one, is of this kind."""

    kind: Kind
    what: str
    pattern: re.Pattern[str]
    is_so: Callable[[str], bool] = lambda _: True


def findings(texts: Iterable[str]) -> tuple[ContentRule, ...]:
    """The rules that some of the texts fall under, in the order of the rules."""
    texts = tuple(texts)
    return tuple(rule for rule in RULES if any(_holds(rule, text) for text in texts))


def _holds(rule: ContentRule, text: str) -> bool:
    """A pattern that looks ahead, and so tries each beginning, has what it sees in a group."""
    return any(rule.is_so(match.group(match.lastindex or 0)) for match in rule.pattern.finditer(text))


def _has_card(numbers: str) -> bool:
    """Whether a row of numbers is a payment card, however it is grouped, or holds one that is grouped as cards are."""
    groups = re.split("[ -]", numbers)
    return _is_card("".join(groups)) or any(_begins_card(groups[at : at + CARD_GROUPS]) for at in range(len(groups)))


def _begins_card(groups: list[str]) -> bool:
    num_long = next((n for n, group in enumerate(groups) if len(group) < CARD_GROUP), len(groups))
    return any(map(_is_card, accumulate(groups[: num_long + 1])))


def _is_card(number: str) -> bool:
    """By its beginning, its length and its check digit (ISO/IEC 7812-1)."""
    if not CARD.fullmatch(number):
        return False
    digits = [int(c) for c in number]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _begins_iban(words: str) -> bool:
    """Whether the first of the words are a bank account: of its country's length, by its check digits (ISO 13616)."""
    length = IBAN_LENGTHS.get(words[:2].upper())
    account = next((said for said in accumulate(words.split(" ")) if len(said) == length), None)
    return account is not None and int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


def _has_digit(key: str) -> bool:
    """A name in a program can look like a key; hardly any key is without digits."""
    return any(map(str.isdigit, key))


def _is_a_persons(address: str) -> bool:
    return address.partition("@")[0].casefold() not in ROLES


def _rule(kind: Kind, what: str, pattern: str, is_so: Callable[[str], bool] = lambda _: True) -> ContentRule:
    return ContentRule(kind, what, re.compile(pattern), is_so)


RULES = (
    _rule(Kind.SECRET, "a private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
    _rule(Kind.SECRET, "an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    _rule(Kind.SECRET, "a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    _rule(Kind.SECRET, "a GitLab token", r"\bglpat-[\w-]{16,}"),
    _rule(Kind.SECRET, "a Slack token", r"\bxox[abeoprs]-[\w-]{10,}"),
    _rule(Kind.SECRET, "an API key", r"\b(?:sk|pk|rk)[-_](?:[a-z]{1,20}[-_])?[A-Za-z0-9_-]{20,}", _has_digit),
    _rule(Kind.SECRET, "a Google API key", r"\bAIza[\w-]{30,}"),
    _rule(Kind.SECRET, "a key of honed", r"\bhk_[\w-]{20,}"),
    _rule(Kind.SECRET, "a JSON web token", r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),
    _rule(Kind.SECRET, "an address with a password", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,200}:[^\s/@]{1,200}@"),
    _rule(Kind.PERSONAL, "an e-mail address", r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b", _is_a_persons),
    _rule(Kind.PERSONAL, "a telephone number", r"(?<![\w.+])\+\d{1,3}(?:[ .()/-]{0,2}\d){7,12}(?!\w)"),
    _rule(Kind.PERSONAL, "a telephone number", r"(?<![\w.+-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w-])"),
    _rule(Kind.PERSONAL, "a payment card", r"(?<![\w.-])\d(?:[ -]?\d){12,}(?![\w-])", _has_card),
    _rule(Kind.PERSONAL, "a bank account", r"\b(?=([A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,31}))", _begins_iban),
    _rule(Kind.PERSONAL, "a social security number", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
)
