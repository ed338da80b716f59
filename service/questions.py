"""Which answers people are asked about: columns from the store, the choice from `agent`, the last word from policy."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import compress, islice

import numpy as np

from agent.acquisition.choosing import Choice, choose, likely, plan, reason, shortlist
from agent.acquisition.factors import SEARCHED, Log, Vectors, cheap_factors, repairability
from agent.scope import Scope
from policies.engine import PolicySet
from policies.labeling import AskFacts, should_ask
from service.certainty import Certainty
from store.comparisons import Comparisons
from store.interactions import Interactions
from store.labels import Labels
from store.pool import Columns, Pool
from store.records import FinishReason, Interaction, LabelTask
from store.vectors import VectorIndex

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
HOURS = 4  # that a day's questions take at least: they are not all spent on what comes first
MAX_LIKELY = 100  # open questions that a candidate is asked: a few days' worth
LIKELY_SEARCHED = 1_000  # looked at for them: most may be outside its scope
MAX_PROMPT = 512  # tokens of each
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
        champion: Callable[[], str],
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
        self._champion = champion
        self._policy_set = policy_set
        self._budget = budget
        self._draw = draw
        self._clock = clock

    def ask(self) -> int:
        """Put a batch of questions, as far as the hour's and the day's budget go; returns how many."""
        now = self._clock()
        size = min(
            self._budget.per_hour - self._labels.count_added_since(now - HOUR_SECONDS),
            self._budget.per_day - self._labels.count_added_since(now - DAY_SECONDS),
        )
        if size < 1:
            return 0
        columns = self._pool.columns()
        chosen = self._choose(columns, size, now)
        seqs = [int(columns.seq[choice.place]) for choice in chosen]
        whole = zip(self._pool.ids(seqs), self._vectors(seqs), chosen, strict=True)
        return sum(self._put(id_, vector, choice, now) for id_, vector, choice in whole)

    def likely(self, scope: Scope | None) -> list[Interaction]:
        """Open questions inside a candidate's scope that would be asked about next: those of which to know how unsure
        the candidate is, for the doubt that was logged is another checkpoint's.
        """
        columns = self._pool.columns()
        log = self._log(columns)
        seqs = columns.seq[likely(log, cheap_factors(log), LIKELY_SEARCHED)].tolist()
        if scope is not None:
            seqs = list(compress(seqs, scope.covers_each(self._vectors(seqs))))
        found = map(self._interactions.get, self._pool.ids(seqs))
        return list(islice((one for one in found if one and one.prompt_tokens <= MAX_PROMPT), MAX_LIKELY))

    def doubt(self, checkpoint_id: str, doubts: Mapping[str, float]) -> None:
        """How unsure, in the signal's unit, a checkpoint is of what was asked, by interactions."""
        self._pool.add_doubts(checkpoint_id, doubts)

    def _choose(self, columns: Columns, size: int, now: float) -> list[Choice]:
        asked = {arm: sum(states.values()) for arm, states in self._labels.count_by_arm().items()}
        log = self._log(columns)
        cheap = cheap_factors(log)
        short = shortlist(log, cheap, plan(size, asked), self._draw)
        vectors = self._vectors(list(columns.seq[short.places]))
        return choose(
            log,
            cheap,
            short,
            vectors=vectors,
            cosines=self._index.neighbours(vectors, SEARCHED),
            taken=self._vectors(self._pool.recently_taken(TAKEN)),
            left=self._left(columns, now),
            draw=self._draw,
        )

    def _log(self, columns: Columns) -> Log:
        by_person = repairability(columns.principals, self._labels.count_settled_by_person())
        return Log(
            uncertainty=columns.uncertainty,
            checkpoint=columns.checkpoint,
            principal=columns.principal,
            question=columns.question,
            repairability=by_person[columns.principal],
            is_open=columns.is_open,
            doubt=self._pool.doubts(self._champion(), columns.seq),
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
        return None if other is None or self._is_settled(other) else other

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
            is_asked=self._is_settled(interaction.id),
            is_complete=interaction.finish_reason in (FinishReason.STOP, FinishReason.LENGTH),
            is_empty=not interaction.reply.strip(),
        )

    def _is_settled(self, interaction_id: str) -> bool:
        """Asked before, or already judged by a person without being asked."""
        if self._labels.for_interaction(interaction_id) is not None:
            return True
        return bool(self._interactions.feedback_for(interaction_id))
