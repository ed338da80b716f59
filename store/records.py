"""The records everything else passes around. Standard library only, no behaviour beyond shape.

Times are UTC seconds since the epoch (float); ids and digests are lower-case hex strings.
Only `TrainingRun` and `LabelTask` change state; every other record is append-only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = Mapping[str, Any]


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # end-of-turn token or a stop string
    LENGTH = "length"  # the token limit of the request or the context
    DISCONNECT = "disconnect"  # the client went away
    ERROR = "error"  # the engine failed


class Rating(StrEnum):
    """A thumb."""

    UP = "up"
    DOWN = "down"


class FeedbackSource(StrEnum):
    """Where a person's word came from."""

    FEEDBACK = "feedback"  # `POST /v1/feedback`, `honed feedback`, the page
    LABEL = "label"  # an answer to a question of the label queue


class LabelState(StrEnum):
    """Life of a question to a person."""

    OPEN = "open"
    ANSWERED = "answered"  # a correction was given
    RIGHT = "right"  # "it was right"
    WRONG = "wrong"  # and nobody said what would be right
    DOCUMENTED = "documented"  # a document that settles it was named
    UNKNOWN = "unknown"  # whoever was asked does not know
    COMPARED = "compared"  # of two answers, one was picked, or neither
    SKIPPED = "skipped"
    EXCLUDED = "excluded"  # "don't learn this"


class Arm(StrEnum):
    """How a question to a person was chosen."""

    DENSE_UNCERTAIN = "dense-uncertain"  # by acquisition score
    WARM_UP = "warm-up"  # among the first: what is typical
    RANDOM = "random"  # the control arm that the others are measured by


class RunState(StrEnum):
    """Life of a training run."""

    QUEUED = "queued"
    TRAINING = "training"
    EVALUATING = "evaluating"
    JUDGED = "judged"  # candidate, evaluation and verdict are on record
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # its process was lost and could not be taken up

    @property
    def is_over(self) -> bool:
        return self in (RunState.JUDGED, RunState.FAILED, RunState.INTERRUPTED)


class Outcome(StrEnum):
    """What policy says of an evaluation."""

    PASS = "pass"  # noqa: S105 - an outcome, not a secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Decision(StrEnum):
    """What an operator signs."""

    APPROVE = "approve"
    REJECT = "reject"


class PromotionKind(StrEnum):
    """Why the champion changed."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """One generated token: its id, and log-probability and entropy (nats) of the model's own distribution."""

    token_id: int
    logprob: float
    entropy: float


@dataclass(frozen=True, slots=True)
class Interaction:
    """One turn: what was asked, what was answered, by which checkpoint, how surely."""

    id: str
    conversation_id: str
    created_at: float
    principal: str
    checkpoint_id: str
    messages: tuple[Json, ...]  # as sent: role and content
    reply: str
    finish_reason: FinishReason
    tokens: tuple[TokenTrace, ...]
    prompt_tokens: int
    latency_seconds: float
    uncertainty: float | None  # mean token entropy in nats; None when no token was made
    sampling: Json = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last thing the person said, or a tool in their name."""
        return next((str(m["content"]) for m in reversed(self.messages) if m["role"] == "user"), "")


@dataclass(frozen=True, slots=True)
class Feedback:
    """A person's word on one interaction. The newest one of an interaction stands; all are kept."""

    id: str
    interaction_id: str
    created_at: float
    principal: str
    source: FeedbackSource
    rating: Rating | None = None
    correction: str | None = None
    comment: str | None = None
    is_excluded: bool = False  # "don't learn this"
    document: str | None = None  # what settles it: a title, a path, an address


@dataclass(frozen=True, slots=True)
class LabelTask:
    """A question to a person about one interaction; with `other_id`, which of two answers to the same is better."""

    id: str
    interaction_id: str
    created_at: float
    score: float
    reason: str
    state: LabelState = LabelState.OPEN
    resolved_at: float | None = None
    arm: Arm | None = None  # None of questions from before there were arms
    other_id: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetSnapshot:
    """A sealed training set: its digest, counts, and rows by source."""

    id: str
    created_at: float
    num_train: int
    num_holdout: int
    num_replay: int
    sources: Json


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training job and where it stands."""

    id: str
    created_at: float
    trigger: str  # "operator:NAME", "schedule", …
    base_id: str
    snapshot_id: str
    recipe: Json
    state: RunState = RunState.QUEUED
    attempt: int = 1
    pid: int | None = None
    pid_started_at: float | None = None  # tells a reused pid from ours
    heartbeat_at: float | None = None
    finished_at: float | None = None
    checkpoint_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed LoRA adapter directory; `id` is the digest of its manifest."""

    id: str
    created_at: float
    run_id: str
    base_id: str
    parent_id: str  # the champion when it was trained
    dataset_id: str
    manifest: Json


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measurements of a candidate beside the champion of the time and the base; `id` is the digest of `results`."""

    id: str
    created_at: float
    checkpoint_id: str
    champion_id: str
    base_id: str
    results: Json


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that decided, with its effect ("permit" or "forbid") and the reason it gives."""

    id: str
    effect: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy said of one evaluation, and the facts it was said on."""

    id: str
    created_at: float
    checkpoint_id: str
    evaluation_id: str
    outcome: Outcome
    rules: tuple[RuleHit, ...]
    facts: Json
    policy_id: str  # digest of the policy set


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who may ask over the network: the SHA-256 of a random key, and the principal that the log will name."""

    id: str
    principal: str
    digest: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who may approve: public Ed25519 key (hex) and the signed envelope that introduced them."""

    key_id: str
    name: str
    public_key: str
    created_at: float
    envelope: Json


@dataclass(frozen=True, slots=True)
class Approval:
    """A signed decision that was accepted; `id` is the statement's nonce."""

    id: str
    created_at: float
    checkpoint_id: str
    decision: Decision
    key_id: str
    operator: str
    reason: str
    expires_at: float
    envelope: Json


@dataclass(frozen=True, slots=True)
class Promotion:
    """The act that makes a champion. The newest one names the champion; without any, it is the base."""

    id: int
    created_at: float
    checkpoint_id: str
    previous_id: str
    kind: PromotionKind
    actor: str
    reason: str
    approval_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link of the hash chain: `hash` = sha256 over `prev_hash` and the canonical JSON of the rest."""

    seq: int
    created_at: float
    event: str
    body: Json
    prev_hash: str
    hash: str
