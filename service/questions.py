"""Which answers people are asked about: columns from the store, the choice from `agent`, the last word from policy."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from agent.acquisition.choosing import Choice, Shortlist, among, choose, plan, reason, shortlist, wider
from agent.acquisition.factors import SEARCHED, Cheap, Ints, Log, Vectors, cheap_factors, repairability
from agent.neighbours import Neighbours
from policies.engine import PolicySet
from policies.labeling import AskFacts, should_ask
from service.certainty import Certainty
from service.config import Settings
from service.reasking import AskedAgain
from service.stores import Stores
from store.comparisons import Comparisons
from store.interactions import Interactions
from store.labels import Labels
from store.pool import Columns, Pool
from store.records import Arm, FinishReason, Interaction, LabelTask
from store.vectors import VectorIndex

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
HOURS = 4  # that a day's questions take at least: they are not all spent on what comes first
JUDGED = 2_000  # answers whose like are likely wrong where they were
TAKEN = 10_000  # asked or judged before, the newest of them, that a question must not repeat


@dataclass(frozen=True, slots=True)
class Budget:
    """How much people are asked, and from which score."""

    per_day: int
    per_person: int  # a day, about one person's answers
    threshold: float

    @property
    def per_hour(self) -> int:
        return -(-self.per_day // HOURS)


def questions(
    settings: Settings,
    stores: Stores,
    *,
    index: VectorIndex,
    certainty: Certainty,
    reasking: AskedAgain,
    policy_set: PolicySet,
) -> "Questions":
    """As a daemon with these settings asks, over its stores."""
    return Questions(
        interactions=stores.interactions,
        labels=stores.labels,
        comparisons=stores.comparisons,
        pool=stores.pool,
        index=index,
        certainty=certainty,
        reasking=reasking,
        policy_set=policy_set,
        budget=Budget(settings.ask_per_day, settings.ask_per_person, settings.ask_threshold),
        draw=np.random.default_rng(),
    )


class Questions:
    """Runs in the daemon's background, never on a request's path."""

    def __init__(
        self,
        *,
        interactions: Interactions,
        labels: Labels,
        comparisons: Comparisons,
        pool: Pool,
        index: VectorIndex,
        certainty: Certainty,
        reasking: AskedAgain,
        policy_set: PolicySet,
        budget: Budget,
        draw: np.random.Generator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._labels = labels
        self._comparisons = comparisons
        self._pool = pool
        self._index = index
        self._certainty = certainty
        self._reasking = reasking
        self._policy_set = policy_set
        self._budget = budget
        self._draw = draw
        self._clock = clock
        self.has_looked_closer = False  # whether the last choice learnt new doubts: the next may differ

    def num_left(self) -> int:
        """How many more the hour's and the day's budget allow now; none when 0 or less."""
        now = self._clock()
        return min(
            self._budget.per_hour - self._labels.count_added_since(now - HOUR_SECONDS),
            self._budget.per_day - self._labels.count_added_since(now - DAY_SECONDS),
        )

    def ask(self) -> int:
        """Put a batch of questions, as far as the budget goes; returns how many."""
        now, size, self.has_looked_closer = self._clock(), self.num_left(), False
        if size < 1:
            return 0
        columns = self._pool.columns()
        chosen = self._choose(columns, size, now)
        seqs = [int(columns.seq[choice.place]) for choice in chosen]
        whole = zip(self._pool.ids(seqs), self._vectors(seqs), chosen, strict=True)
        return sum(self._put(id_, vector, choice, now) for id_, vector, choice in whole)

    def _choose(self, columns: Columns, size: int, now: float) -> list[Choice]:
        """Picked in two rounds: more than are asked by what is known, and of these by what is doubted now."""
        asked = {arm: sum(states.values()) for arm, states in self._labels.count_by_arm().items()}
        planned, left = plan(size, asked), self._left(columns, now)
        log = self._log(columns)
        cheap = cheap_factors(log)
        short = shortlist(log, cheap, wider(planned), self._draw)
        chosen = self._chosen(columns, log, cheap, short, left)
        picked = [one for one in chosen if one.arm is Arm.DENSE_UNCERTAIN]
        others = [one for one in chosen if one.arm is not Arm.DENSE_UNCERTAIN]
        num_known = len(self._reasking.known)
        picked = self._ask_again(columns, [one for one in picked if one.score >= self._budget.threshold])
        self.has_looked_closer = len(self._reasking.known) > num_known
        for one in others:
            left[log.principal[one.place]] -= 1
        log = self._log(columns)
        cheap = cheap_factors(log)
        picked = [one for one in picked if not cheap.is_outlier[one.place]]
        if not picked:
            return others
        return [*others, *self._chosen(columns, log, cheap, among(picked, planned), left)]

    def _chosen(self, columns: Columns, log: Log, cheap: Cheap, short: Shortlist, left: Ints) -> list[Choice]:
        vectors, judged = self._vectors(list(columns.seq[short.places])), self._judged()
        return choose(
            log,
            cheap,
            short,
            vectors=vectors,
            cosines=self._index.neighbours(vectors, SEARCHED),
            share_wrong=judged.share_wrong(vectors) if judged else None,
            taken=self._vectors(self._pool.recently_taken(TAKEN)),
            left=left,
            draw=self._draw,
        )

    def _judged(self) -> Neighbours | None:
        """What people judged lately, whichever checkpoint had answered; None while it is all right or all wrong."""
        seqs, wrong = self._interactions.judgements()
        seqs, wrong = seqs[-JUDGED:], wrong[-JUDGED:]
        if not 0 < wrong.sum() < len(wrong):
            return None
        return Neighbours(self._vectors(seqs.tolist()), wrong)

    def _ask_again(self, columns: Columns, picked: list[Choice]) -> list[Choice]:
        """Those of which it is known now what they are worth: where time is short, the first; where there is none, all,
        by what was logged.
        """
        places = [one.place for one in picked]
        seqs = columns.seq[places].tolist()
        whole = zip(columns.question[places].tolist(), self._pool.ids(seqs), self._vectors(seqs), strict=True)
        found = ((key, self._interactions.get(id_), vector) for key, id_, vector in whole)
        return picked[: self._reasking.ask(found)] or picked

    def _log(self, columns: Columns) -> Log:
        by_person = repairability(columns.principals, self._labels.count_settled_by_person())
        doubt, doubted_by = np.full(len(columns.seq), np.nan), np.zeros(len(columns.seq), dtype=np.int64)
        numbers = {name: number for number, name in enumerate(columns.checkpoints)}
        known = self._reasking.known
        for place in np.flatnonzero(np.isin(columns.question, list(known))):
            found = known[int(columns.question[place])]
            doubt[place] = found.uncertainty
            doubted_by[place] = numbers.setdefault(found.checkpoint_id, len(numbers))
        return Log(
            uncertainty=columns.uncertainty,
            checkpoint=columns.checkpoint,
            principal=columns.principal,
            question=columns.question,
            repairability=by_person[columns.principal],
            is_open=columns.is_open,
            doubt=doubt,
            doubted_by=doubted_by,
            is_doubt_as_logged=self._reasking.is_as_logged,
        )

    def _vectors(self, seqs: list[int]) -> Vectors:
        """Of unit length; zeros stay."""
        rows = self._pool.vectors(seqs, self._index.dim)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)

    def _left(self, columns: Columns, now: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        used = self._labels.count_added_by_person(now - DAY_SECONDS)
        return np.array([self._budget.per_person - used.get(name, 0) for name in columns.principals], dtype=np.int64)

    def _put(self, interaction_id: str, vector: Vectors, choice: Choice, now: float) -> bool:
        interaction = self._interactions.get(interaction_id)
        if interaction is None or not should_ask(self._facts(interaction, choice, now), self._policy_set).allowed:
            return False
        wrong = self._certainty.probability_wrong(interaction.checkpoint_id, interaction.tokens, vector.tolist())
        why = reason(choice, wrong)
        task = LabelTask(uuid.uuid4().hex, interaction_id, now, choice.score, why, arm=choice.arm)
        self._labels.add(replace(task, other_id=self._other_answer(interaction)))
        return True

    def _other_answer(self, interaction: Interaction) -> str | None:
        """Where the same was answered twice in different words, people are asked which is better."""
        if interaction.finish_reason is not FinishReason.STOP:
            return None
        other = self._comparisons.other_answer(interaction)
        return None if other is None or self._pool.is_taken(other) else other

    def _facts(self, interaction: Interaction, choice: Choice, now: float) -> AskFacts:
        since = now - DAY_SECONDS
        return AskFacts(
            interaction_id=interaction.id,
            arm=choice.arm,
            score=choice.score,
            threshold=self._budget.threshold,
            asked_today=self._labels.count_added_since(since),
            daily_budget=self._budget.per_day,
            asked_person_today=self._labels.count_added_by_person(since).get(interaction.principal, 0),
            person_budget=self._budget.per_person,
            is_asked=self._pool.is_taken(interaction.id),
            is_complete=interaction.finish_reason in (FinishReason.STOP, FinishReason.LENGTH),
            is_empty=not interaction.reply.strip(),
        )
