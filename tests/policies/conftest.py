"""Real keys, real rules: the only things made up here are the digests."""

from dataclasses import replace

import pytest
from securesystemslib.signer import CryptoSigner

from policies.approval import Accepted, Refused, State, Statement, check_operator, examine, introduce, sign
from policies.engine import PolicySet, shipped
from store.records import Decision, Operator, Outcome

NOW = 1_800_000_000.0
HOUR = 3600.0


class Desk:
    """Two operators, a candidate that passed, and everything needed to sign and examine."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.policy_set = policy_set
        self.ann_key, self.bob_key, self.stranger_key = (CryptoSigner.generate_ed25519() for _ in range(3))
        self.ann = self.known("ann", self.ann_key)
        self.bob = self.known("bob", self.bob_key, self.ann_key, known=[self.ann])
        self.operators = [self.ann, self.bob]
        self.state = State(
            candidate="c" * 64,
            champion="a" * 64,
            base="b" * 64,
            policy=policy_set.id,
            evaluation="e" * 64,
            dataset="d" * 64,
            verdict=Outcome.PASS,
            used_nonces=frozenset({"used"}),
            signers=frozenset(),
            is_rejected=False,
        )

    @staticmethod
    def known(name: str, key: CryptoSigner, *others: CryptoSigner, known: list[Operator] | None = None) -> Operator:
        public = key.public_key.keyval["public"]
        return check_operator(introduce(name, public, NOW, [key, *others]), known or [])

    def statement(self, **changes: object) -> Statement:
        fields = {
            "candidate": self.state.candidate,
            "champion": self.state.champion,
            "base": self.state.base,
            "policy": self.state.policy,
            "evaluation": self.state.evaluation,
            "dataset": self.state.dataset,
            "decision": Decision.APPROVE,
            "reason": "read all the changed answers",
            "operator": "ann",
            "key_id": self.ann.key_id,
            "nonce": "0123456789abcdef",
            "issued_at": NOW,
            "expires_at": NOW + 72 * HOUR,
        }
        return Statement(**(fields | changes))

    def signed(self, **changes: object) -> dict:
        return sign(self.statement(**changes), self.ann_key)

    def signed_by_bob(self, **changes: object) -> dict:
        by_bob = {"operator": "bob", "key_id": self.bob.key_id, "nonce": "fedcba9876543210"}
        return sign(self.statement(**(by_bob | changes)), self.bob_key)

    def examine(self, envelope: object, *, now: float = NOW + HOUR, **state: object) -> Accepted | Refused:
        return examine(envelope, self.operators, replace(self.state, **state), now, self.policy_set)


@pytest.fixture(scope="session")
def policy_set() -> PolicySet:
    return shipped()


@pytest.fixture(scope="session")
def desk(policy_set: PolicySet) -> Desk:
    return Desk(policy_set)


def rule_ids(ruling: object) -> list[str]:
    return [hit.id for hit in ruling.rules]


@pytest.fixture(scope="session")
def ids() -> object:
    """The names of the rules that decided a ruling."""
    return rule_ids
