"""Deterministic content rules: what in a text nobody should learn by heart. Pure.

Secrets by the form their issuers give them, and personal data by form and check digit. A shop's own address is a fact
that people may teach: mailboxes of a role (info@, support@, …) are not a person's.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

ROLES = frozenset(
    (
        *("billing", "contact", "hello", "help", "hr", "info", "jobs", "mail"),
        *("office", "orders", "press", "sales", "service", "support", "team"),
    )
)


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
    return any(rule.is_so(match.group()) for match in rule.pattern.finditer(text))


def _is_luhn(text: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """The check digits of bank accounts (ISO 13616)."""
    plain = text.replace(" ", "")
    number = "".join(str(int(c, 36)) for c in plain[4:] + plain[:4])
    return 15 <= len(plain) <= 34 and int(number) % 97 == 1


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
    _rule(Kind.PERSONAL, "a payment card", r"(?<![\w.-])[2-6](?:[ -]?\d){12,18}(?![\w-])", _is_luhn),
    _rule(Kind.PERSONAL, "a bank account", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", _is_iban),
    _rule(Kind.PERSONAL, "a social security number", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
)
