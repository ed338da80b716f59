"""What an operator signs about a candidate, and reading it back from bytes that were verified.

Whether the decision is accepted is left to `approval`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from securesystemslib.signer import CryptoSigner

from policies.engine import PolicyError
from policies.envelope import MalformedError, Signed, canonical, fields_of, read, seal
from policies.refusal import Refusal, Refused
from store.records import Decision, Operator

PAYLOAD_TYPE = "application/vnd.honed.approval+json"
MIN_REASON_LENGTH = 3
MAX_REASON_LENGTH = 4_000
LATEST_TIME = 1e11  # the year 5138: anything past it is not a time in seconds


@dataclass(frozen=True, slots=True)
class Statement:
    """A decision on a candidate, bound to everything that was looked at to make it."""

    candidate: str
    champion: str
    base: str
    policy: str
    evaluation: str
    dataset: str
    decision: Decision
    reason: str
    operator: str
    key_id: str
    nonce: str
    issued_at: float
    expires_at: float

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_times(self)
        if not isinstance(self.decision, Decision):
            raise MalformedError(f"decision must be a Decision, got {self.decision!r}")
        if not MIN_REASON_LENGTH <= len(self.reason.strip()) <= MAX_REASON_LENGTH:
            raise MalformedError(
                f"the reason must have {MIN_REASON_LENGTH} to {MAX_REASON_LENGTH} characters, got {self.reason!r}"
            )

    def to_bytes(self) -> bytes:
        return canonical(asdict(self))

    @classmethod
    def from_bytes(cls, payload: bytes) -> "Statement":
        found = fields_of(payload, {field.name for field in fields(cls)})
        return cls(**(found | {"decision": _decision(found["decision"])}))


def sign(statement: Statement, signer: CryptoSigner) -> dict[str, Any]:
    """The statement in an envelope signed with the key it names."""
    if signer.public_key.keyid != statement.key_id:
        raise MalformedError(f"the statement names key {statement.key_id}, the signer is {signer.public_key.keyid}")
    return seal(statement.to_bytes(), PAYLOAD_TYPE, [signer])


def authenticate(envelope: Mapping[str, Any], operators: Sequence[Operator]) -> Statement | Refused:
    """The statement an operator signed, read from the very bytes that were verified. Says nothing of its merits."""
    payload_type = envelope.get("payloadType") if isinstance(envelope, Mapping) else None
    if payload_type != PAYLOAD_TYPE:
        return Refused(Refusal.WRONG_TYPE, f"payloadType must be {PAYLOAD_TYPE}, got {payload_type!r}")
    try:
        signed = read(envelope)
        operator = _signer(signed, operators)
        if isinstance(operator, Refused):
            return operator
        statement = Statement.from_bytes(signed.payload)
    except PolicyError as error:
        return Refused(Refusal.MALFORMED, str(error))
    if (statement.key_id, statement.operator) != (operator.key_id, operator.name):
        named = f"{statement.operator} with key {statement.key_id}"
        return Refused(Refusal.BAD_SIGNATURE, f"the statement names {named}, but {operator.name} signed it")
    return statement


def _signer(signed: Signed, operators: Sequence[Operator]) -> Operator | Refused:
    if len(signed.signatures) != 1:
        return Refused(Refusal.MALFORMED, f"an approval has one signature, got {len(signed.signatures)}")
    key_id = next(iter(signed.signatures))
    operator = next((one for one in operators if one.key_id == key_id), None)
    if operator is None:
        return Refused(Refusal.UNKNOWN_KEY, f"no operator has the key {key_id}; introduce them first")
    if not signed.is_signed_by(operator.key_id, operator.public_key):
        return Refused(Refusal.BAD_SIGNATURE, f"the signature by {operator.name} does not match what it should cover")
    return operator


def _decision(value: Any) -> Decision:
    try:
        return Decision(value)
    except ValueError as error:
        raise MalformedError(f"decision must be one of {[str(one) for one in Decision]}, got {value!r}") from error


def _check_texts(statement: Statement) -> None:
    for field in fields(statement):
        value = getattr(statement, field.name)
        if field.type is str and not (isinstance(value, str) and value):
            raise MalformedError(f"{field.name} must be text and not empty, got {value!r}")


def _check_times(statement: Statement) -> None:
    for name in ("issued_at", "expires_at"):
        value = getattr(statement, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < LATEST_TIME:
            raise MalformedError(f"{name} must be a time in seconds since 1970, got {value!r}")
    if statement.expires_at <= statement.issued_at:
        raise MalformedError(f"it expires ({statement.expires_at}) before it is issued ({statement.issued_at})")
