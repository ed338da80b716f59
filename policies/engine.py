"""The Cedar policy set and how it decides. The only module that knows cedarpy.

Default deny: a request passes only when Cedar allows it and nothing went wrong on the way. It knows
nothing of what the facts mean; the modules named after a decision turn records into requests.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import cedarpy

from store.records import Json, Outcome, RuleHit

Entity = tuple[str, str]  # type and id, as the schema names them

DAEMON: Entity = ("Daemon", "honed")
OPERATOR_PREFIX = "operator:"

DEFAULT_DENY = RuleHit(id="default.deny", effect="forbid", reason="no rule allows it")


class PolicyError(ValueError):
    """A policy set, statement or key that can't be taken as it is."""


def principal_of(actor: str) -> Entity:
    """`operator:NAME` is that operator; anything else ("schedule", "health", …) is the daemon itself."""
    name = actor.removeprefix(OPERATOR_PREFIX)
    return ("Operator", name) if name and name != actor else DAEMON


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy's name, effect, and what it says when it decides."""

    id: str
    effect: str
    reason: str
    is_inconclusive: bool

    @property
    def hit(self) -> RuleHit:
        return RuleHit(id=self.id, effect=self.effect, reason=self.reason)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided, by which rules, on which facts."""

    allowed: bool
    outcome: Outcome
    rules: tuple[RuleHit, ...]
    errors: tuple[str, ...] = ()
    facts: Json = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """One line for people: the reasons of the rules that decided, then any errors."""
        return "; ".join([hit.reason for hit in self.rules] + list(self.errors))


class PolicySet:
    """Rules that were checked against their schema. Make one with `parse` or `shipped`."""

    def __init__(self, *, policies: cedarpy.PolicySet, schema: cedarpy.Schema, rules: Mapping[str, Rule], digest: str):
        self._policies = policies
        self._schema = schema
        self._rules = dict(rules)
        self.id = digest

    @classmethod
    def parse(cls, cedar_text: str, schema_text: str) -> "PolicySet":
        checked = cedarpy.validate_policies(cedar_text, schema_text)
        if not checked.validation_passed:
            problems = "; ".join(str(error) for error in checked.errors)
            raise PolicyError(f"the policy set does not fit its schema: {problems}")
        return cls(
            policies=cedarpy.PolicySet.from_str(cedar_text),
            schema=cedarpy.Schema.from_str(schema_text),
            rules=_rules(cedar_text),
            digest=_digest(cedar_text, schema_text),
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules.values())

    def decide(self, action: str, principal: Entity, resource: Entity, context: Mapping[str, Any]) -> Ruling:
        request = {
            "principal": _entity(principal),
            "action": _entity(("Action", action)),
            "resource": _entity(resource),
            "context": dict(context),
        }
        result = cedarpy.is_authorized(request, self._policies, [], self._schema)
        named = result.diagnostics.id_annotations_by_reason
        decided = sorted(
            (self._rules[named[reason]] for reason in result.diagnostics.reasons), key=lambda rule: rule.id
        )
        errors = tuple(result.diagnostics.errors)
        allowed = result.decision is cedarpy.Decision.Allow and not errors
        return Ruling(
            allowed=allowed,
            outcome=_outcome(allowed, decided),
            rules=_hits(allowed, decided),
            errors=errors,
            facts=dict(context),
        )


def shipped() -> PolicySet:
    """The rules that come with the package. Reading them is the one input `policies` does by itself."""
    package = resources.files("policies")
    return PolicySet.parse(
        package.joinpath("default.cedar").read_text(encoding="utf-8"),
        package.joinpath("schema.cedarschema").read_text(encoding="utf-8"),
    )


def _hits(allowed: bool, decided: list[Rule]) -> tuple[RuleHit, ...]:
    # A permit that matched beside an evaluation error decided nothing: what is left is the default.
    effect = "permit" if allowed else "forbid"
    return tuple(rule.hit for rule in decided if rule.effect == effect) or (DEFAULT_DENY,)


def _outcome(allowed: bool, decided: list[Rule]) -> Outcome:
    if allowed:
        return Outcome.PASS
    if any(rule.effect == "forbid" and not rule.is_inconclusive for rule in decided):
        return Outcome.FAIL
    return Outcome.INCONCLUSIVE


def _rules(cedar_text: str) -> dict[str, Rule]:
    parsed = json.loads(cedarpy.policies_to_json_str(cedar_text))
    if parsed["templates"]:
        raise PolicyError("the policy set holds a template; write its entities out, nothing here fills slots")
    rules: dict[str, Rule] = {}
    for policy in parsed["staticPolicies"].values():
        rule = _rule(policy["effect"], policy["annotations"])
        if rule.id in rules or rule.id == DEFAULT_DENY.id:
            raise PolicyError(f"the rule id {rule.id!r} is taken; give each policy an @id of its own")
        rules[rule.id] = rule
    return rules


def _rule(effect: str, annotations: Mapping[str, str | None]) -> Rule:
    rule_id, reason, verdict = (annotations.get(name) for name in ("id", "reason", "verdict"))
    if not rule_id or not reason:
        raise PolicyError(f"a {effect} policy (@id {rule_id!r}) lacks an @id or @reason; each needs both")
    if "verdict" in annotations and (verdict != "inconclusive" or effect != "forbid"):
        raise PolicyError(f'{rule_id}: @verdict({verdict!r}) on a {effect}; only forbid takes @verdict("inconclusive")')
    return Rule(id=rule_id, effect=effect, reason=reason, is_inconclusive=verdict == "inconclusive")


def _digest(cedar_text: str, schema_text: str) -> str:
    # Each text is hashed by itself, so that moving a line from one to the other can't keep the id.
    parts = [hashlib.sha256(text.encode()).digest() for text in (cedar_text, schema_text)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _entity(entity: Entity) -> dict[str, str]:
    return {"type": entity[0], "id": entity[1]}
