"""The way back, as a row in the ledger: works with the daemon running or down, and loads nothing."""

from policies.engine import PolicySet
from policies.rollback import RollbackFacts, may_rollback
from store.records import Promotion, PromotionKind
from store.registry import Registry


class RollbackRefused(RuntimeError):
    """There is nothing to go back to, or policy says no."""


def lineage(registry: Registry, base_id: str) -> list[str]:
    """The champion, then what each promotion had replaced, back to the base; less what was rejected since."""
    line = [registry.champion(base_id)]
    while line[-1] != base_id:
        promotion = registry.promotion_to(line[-1])
        following = promotion.previous_id if promotion else base_id
        line.append(base_id if following in line else following)
    return [line[0], *(id_ for id_ in line[1:] if not registry.is_rejected(id_))]


def rollback_target(registry: Registry, base_id: str) -> str | None:
    """What the champion replaced when it was promoted, or what came before that; None when the base serves."""
    return next(iter(lineage(registry, base_id)[1:]), None)


def record_rollback(
    registry: Registry, policy_set: PolicySet, *, base_id: str, target: str | None, actor: str, reason: str, at: float
) -> Promotion:
    """The INSERT alone: all that is needed with the daemon down. RollbackRefused says why not."""
    champion = registry.champion(base_id)
    ruling = may_rollback(RollbackFacts(actor=actor, champion=champion, target=target, reason=reason), policy_set)
    if not ruling.allowed or target is None:
        raise RollbackRefused(f"no rollback: {ruling.reason}")
    return registry.promote(
        checkpoint_id=target,
        previous_id=champion,
        kind=PromotionKind.ROLLBACK,
        actor=actor,
        reason=reason,
        approval_ids=(),
        at=at,
        expected_champion=champion,
        base_id=base_id,
    )
