"""Changing what answers: promote and roll back. Load beside, smoke test, one INSERT, flip, drain the old.
Only the way back may do without room for both: then what is to go goes first.
"""

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from agent.served import ServedModel
from agent.serving import LoadError, ModelLoader, Serving
from policies.engine import PolicySet
from service.pause import Pause
from service.rollback import RollbackRefused, lineage, record_rollback
from service.trust import Choice, NotTrusted, Refusal, Trust
from store.records import Promotion, PromotionKind
from store.registry import Overtaken, Registry

log = structlog.get_logger()


class RolloutError(RuntimeError):
    """A change of weights that did not happen; what answered before still does."""


class NotLoaded(RuntimeError):
    """A rollback that is on record, and whose weights do not load yet."""


class Rollout:
    """One swap at a time. Requests under way end on the weights they began with."""

    def __init__(
        self,
        *,
        registry: Registry,
        trust: Trust,
        loader: ModelLoader,
        policy_set: PolicySet,
        drain_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._trust = trust
        self._loader = loader
        self._policy_set = policy_set
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._one_swap = threading.Lock()
        self._drains: list[threading.Thread] = []
        self.refused: tuple[Refusal, ...] = ()
        self.serving = Serving(self._first())

    def promote(
        self, checkpoint_id: str, *, over: str, actor: str, reason: str, approval_ids: Sequence[str]
    ) -> Promotion:
        """Make a candidate, approved over champion `over`, the champion. RolloutError, Overtaken: nothing changed."""
        with self._one_swap:
            served = self._load(checkpoint_id)
            at = self._clock()  # loading takes its time: what was approved must still be when this goes on record
            try:
                self._trust.require_approval(checkpoint_id, over=over, approval_ids=approval_ids, at=at)
                promotion = self._registry.promote(
                    checkpoint_id=checkpoint_id,
                    previous_id=over,
                    kind=PromotionKind.PROMOTE,
                    actor=actor,
                    reason=reason,
                    approval_ids=tuple(approval_ids),
                    at=at,
                    expected_champion=over,
                    base_id=self._loader.base_id,
                )
            except Exception as error:
                self._discard(served)
                if isinstance(error, NotTrusted | Overtaken):
                    self._note_refusal(checkpoint_id, error)
                if isinstance(error, NotTrusted):
                    raise RolloutError(f"checkpoint {checkpoint_id[:12]} does not serve: {error}") from error
                raise
            self._flip(served)
            return promotion

    def roll_back(self, *, actor: str, reason: str) -> Promotion:
        """Back to what the champion replaced: loaded beside it, or in its place where that fails. RolloutError when
        there is nothing to go back to, NotLoaded when nothing loads even then; the row is written all the same.
        """
        with self._one_swap:
            target = self._previous()
            served = self._beside(target) if target else None
            try:
                promotion = self._record_rollback(target.checkpoint_id if target else None, actor, reason)
            except Exception as error:
                if served is not None:
                    self._discard(served)
                if isinstance(error, RollbackRefused):
                    raise RolloutError(str(error)) from error
                raise
            if served is None:
                return self._replace(promotion)
            self._flip(served)
            return promotion

    def rebuild(self) -> None:
        """A worker died: the same choice again, from disk. Where it is only the base's beside a champion that lives,
        that one alone. Nothing when a swap was quicker.
        """
        with self._one_swap:
            if self.serving.fault() is None:
                return
            current = self.serving.current
            if current.bounds is not None and current.engine.fault() is None:
                elsewhere = self._loader.build(self._loader.base_id, None)
                served = replace(current, bounds=replace(current.bounds, elsewhere=elsewhere))
            else:
                served = self._first(self._living_base())
            self._flip(served, self.refused)

    def close(self) -> int:
        """Let answers under way finish within the drain time; returns how many were cut."""
        deadline = time.monotonic() + self._drain_seconds
        models = self.serving.current.all
        return sum(model.engine.close(max(0.0, deadline - time.monotonic())) for model in models)

    def _previous(self) -> Choice | None:
        """What the champion replaced; should that be damaged, what came before it, and the base at last. None when the
        base is champion.
        """
        for checkpoint_id in lineage(self._registry, self._loader.base_id)[1:]:
            try:
                return Choice(checkpoint_id, self._trust.load(checkpoint_id))
            except NotTrusted as error:
                log.warning("rollback.passed_over", checkpoint=checkpoint_id, reason=str(error))
                self._note_refusal(checkpoint_id, error)
        return None

    def _beside(self, choice: Choice) -> ServedModel | None:
        """Loaded while the champion answers; None when that fails: too little memory for two, say."""
        try:
            return self._build(choice.checkpoint_id, choice.adapter, self._living_base())
        except Exception as error:  # noqa: BLE001 - an accelerator's own, too: nothing may bar the way back
            log.warning("rollback.not_beside", checkpoint=choice.checkpoint_id, reason=str(error))
            return None

    def _record_rollback(self, target: str | None, actor: str, reason: str) -> Promotion:
        return record_rollback(
            self._registry,
            self._policy_set,
            base_id=self._loader.base_id,
            target=target,
            actor=actor,
            reason=reason,
            at=self._clock(),
        )

    def _replace(self, promotion: Promotion) -> Promotion:
        """Let what serves go, then load what is champion now. Until then the base answers, where it lives, or nothing.
        What does not load even with all the room is passed over, on record too.
        """
        base, pause = self._living_base(), Pause()
        self._flip(base or ServedModel(promotion.checkpoint_id, pause))
        for drain in self._drains:
            drain.join()
        gc.collect()
        try:
            served = self._first(base)
        except Exception as error:
            pause.fail(f"{promotion.checkpoint_id[:12]} does not load: {error}")
            self.refused = (Refusal(promotion.checkpoint_id, str(error)),)
            raise NotLoaded(
                f"the rollback to {promotion.checkpoint_id[:12]} is on record and what served has stopped, but it does "
                f"not load: {error}; {'the base answers' if base else 'nothing answers'} until a restart finishes it"
            ) from error
        self._flip(served, self.refused)
        if served.checkpoint_id == promotion.checkpoint_id:
            return promotion
        further = self._record_rollback(served.checkpoint_id, promotion.actor, promotion.reason)
        self.refused = ()
        return further

    def _load(self, checkpoint_id: str) -> ServedModel:
        """A candidate, beside what serves now."""
        try:
            return self._build(checkpoint_id, self._trust.adapter_bytes(checkpoint_id), self._living_base())
        except (NotTrusted, LoadError) as error:
            self._note_refusal(checkpoint_id, error)
            raise RolloutError(f"checkpoint {checkpoint_id[:12]} does not serve: {error}") from error

    def _note_refusal(self, checkpoint_id: str, error: Exception | str) -> None:
        body = {"checkpoint": checkpoint_id, "reason": str(error)}
        self._registry.note("checkpoint.refused", body, self._clock())

    def _build(self, checkpoint_id: str, adapter: Mapping[str, bytes] | None, base: ServedModel | None) -> ServedModel:
        """Beside what serves now; an engine of the base that lives already is not made a second time."""
        if adapter is None and base is not None:
            return base
        return self._loader.build(checkpoint_id, adapter, base)

    def _living_base(self) -> ServedModel | None:
        """The base's model among those that answer now, unless its worker died."""
        base_id = self._loader.base_id
        found = (model for model in self.serving.current.all if model.checkpoint_id == base_id)
        return next((model for model in found if model.engine.fault() is None), None)

    def _discard(self, served: ServedModel) -> None:
        """It will not serve after all: close what was built for it."""
        for model in served.all:
            if model not in self.serving.current.all:
                model.engine.close(drain_seconds=0)

    def _first(self, base: ServedModel | None = None) -> ServedModel:
        """What may serve now; what may not is told, recorded and passed over."""
        choice, served = self._trust.choose(), None
        while served is None:
            try:
                served = self._build(choice.checkpoint_id, choice.adapter, base)
            except LoadError as error:  # its bytes are the sealed ones, and do not serve: as good as damaged
                if choice.adapter is None:
                    raise
                choice = self._trust.choose((*choice.refused, Refusal(choice.checkpoint_id, str(error))))
        for refusal in choice.refused:
            log.error("checkpoint.refused", checkpoint=refusal.checkpoint_id, reason=refusal.reason)
            self._note_refusal(refusal.checkpoint_id, refusal.reason)
        self.refused = choice.refused
        return served

    def _flip(self, served: ServedModel, refused: tuple[Refusal, ...] = ()) -> None:
        previous = self.serving.current.checkpoint_id
        left = self.serving.flip(served)
        self.refused = refused
        log.info("champion.flipped", checkpoint=served.checkpoint_id, previous=previous)
        self._drains = [drain for drain in self._drains if drain.is_alive()]
        for old in left:
            drain = threading.Thread(target=self._drain, args=(old,), name="drain", daemon=True)
            self._drains.append(drain)
            drain.start()

    def _drain(self, old: ServedModel) -> None:
        num_cut = old.engine.close(self._drain_seconds)
        self.serving.retire(old, num_cut)
        log.info("engine.drained", checkpoint=old.checkpoint_id, num_cut=num_cut)
