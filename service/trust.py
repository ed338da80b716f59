"""May this checkpoint serve? Its bytes must be the sealed ones and its approval must still hold.
Asked at every load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.checkpoint import FILES
from policies.approval import still_holds
from policies.refusal import Refused
from service.paths import Paths
from service.rollback import lineage
from store import artifacts
from store.artifacts import ArtifactError
from store.records import Decision, Outcome
from store.registry import Registry


class NotTrusted(RuntimeError):
    """A checkpoint that may not serve; the message says which file or which rule."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A checkpoint that should have served, and why it does not."""

    checkpoint_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What may serve now: a checkpoint, its adapter's verified bytes (None for the base), and what was passed over."""

    checkpoint_id: str
    adapter: Mapping[str, bytes] | None
    refused: tuple[Refusal, ...] = ()


class Trust:
    """Verifies checkpoints against the ledger and the disk."""

    def __init__(self, registry: Registry, paths: Paths, *, base_id: str, approvals_required: int) -> None:
        self._registry = registry
        self._paths = paths
        self._base_id = base_id
        self._required = approvals_required

    def adapter_bytes(self, checkpoint_id: str) -> Mapping[str, bytes] | None:
        """The sealed adapter, exactly the bytes that were checked; None for the base. NotTrusted names the file."""
        if checkpoint_id == self._base_id:
            return None
        try:
            sealed = artifacts.read(self._paths.checkpoint(checkpoint_id), checkpoint_id)
        except (ArtifactError, OSError) as error:
            raise NotTrusted(f"{error}") from error
        if sealed.manifest.get("base") != self._base_id:
            raise NotTrusted(
                f"it was trained on base {str(sealed.manifest.get('base'))[:12]}, not {self._base_id[:12]}"
            )
        if missing := set(FILES) - set(sealed.files):
            raise NotTrusted(f"the manifest lists no {sorted(missing)[0]}")
        return sealed.files

    def load(self, checkpoint_id: str) -> Mapping[str, bytes] | None:
        """The adapter of a checkpoint that was promoted: files and approvals are both checked again.
        NotTrusted if not.
        """
        if checkpoint_id != self._base_id:
            self._require_promoted(checkpoint_id)
        return self.adapter_bytes(checkpoint_id)

    def choose(self, passed_over: Sequence[Refusal] = ()) -> Choice:
        """The champion, or the last good one before it, or the base: the first that holds and was not passed over."""
        refused = list(passed_over)
        known = {refusal.checkpoint_id for refusal in passed_over}
        for checkpoint_id in lineage(self._registry, self._base_id):
            if checkpoint_id in known:
                continue
            try:
                return Choice(checkpoint_id, self.load(checkpoint_id), tuple(refused))
            except NotTrusted as error:
                refused.append(Refusal(checkpoint_id, str(error)))
        return Choice(self._base_id, None, tuple(refused))

    def require_approval(self, checkpoint_id: str, *, over: str, approval_ids: Sequence[str], at: float) -> None:
        """What each load of it will ask, of a promotion over champion `over` at that time. NotTrusted says why not."""
        if self._registry.is_rejected(checkpoint_id):
            raise NotTrusted("an operator rejected it")
        verdict = self._registry.verdict_of(checkpoint_id)
        if verdict is None or verdict.outcome is not Outcome.PASS:
            raise NotTrusted(f"its verdict is {verdict.outcome if verdict else 'missing'}, not pass")
        approvals = [
            approval
            for approval in self._registry.approvals_of(checkpoint_id)
            if approval.id in approval_ids and approval.decision is Decision.APPROVE
        ]
        problem = still_holds(
            [approval.envelope for approval in approvals],
            self._registry.operators(),
            candidate=checkpoint_id,
            champion=over,
            at=at,
            required=self._required,
        )
        if isinstance(problem, Refused):
            raise NotTrusted(f"its approval does not hold: {problem.message}")

    def _require_promoted(self, checkpoint_id: str) -> None:
        promotion = self._registry.promotion_to(checkpoint_id)
        if promotion is None:
            raise NotTrusted("it was never promoted")
        self.require_approval(
            checkpoint_id, over=promotion.previous_id, approval_ids=promotion.approval_ids, at=promotion.created_at
        )
