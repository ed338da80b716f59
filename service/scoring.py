"""Every new interaction gets a vector, a novelty and a score; the most worthwhile become questions to people."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.acquisition import acquire
from agent.embedding import Embedder
from policies.engine import PolicySet
from policies.labeling import AskFacts, should_ask
from service.certainty import Certainty
from store.comparisons import Comparisons
from store.interactions import Interactions
from store.labels import Labels
from store.records import FinishReason, Interaction, LabelTask
from store.vectors import VectorIndex

BATCH = 64
WINDOW = 200  # recent answers that an uncertainty is ranked among
DAY_SECONDS = 86_400


class Scoring:
    """Runs in the daemon's background, never on a request's path."""

    def __init__(
        self,
        *,
        interactions: Interactions,
        labels: Labels,
        comparisons: Comparisons,
        index: VectorIndex,
        embedder: Embedder,
        certainty: Certainty,
        policy_set: PolicySet,
        ask_threshold: float,
        ask_per_day: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._labels = labels
        self._comparisons = comparisons
        self._index = index
        self._embedder = embedder
        self._certainty = certainty
        self._policy_set = policy_set
        self._threshold = ask_threshold
        self._budget = ask_per_day
        self._clock = clock
        ids, vectors = interactions.vectors()
        index.load_or_rebuild(ids, vectors)

    def score_new(self) -> int:
        """Score what is unscored, oldest first; returns how many."""
        pending = self._interactions.unscored(BATCH)
        if not pending:
            return 0
        vectors = self._embedder.embed([interaction.question for interaction in pending])
        recent = [i.uncertainty for i in self._interactions.recent(WINDOW) if i.uncertainty is not None]
        for interaction, vector in zip(pending, vectors, strict=True):
            self._score(interaction, [float(x) for x in vector], recent)
        self._index.save()
        return len(pending)

    def _score(self, interaction: Interaction, vector: Sequence[float], recent: Sequence[float]) -> None:
        nearest = self._index.search(vector, 1)
        wrong = self._certainty.probability_wrong(interaction.checkpoint_id, interaction.uncertainty)
        found = acquire(interaction.uncertainty, nearest[0][1] if nearest else None, recent, wrong)
        now = self._clock()
        self._interactions.add_score(interaction.id, vector, found.score, found.novelty, now)
        self._index.add(interaction.id, vector)
        facts = AskFacts(
            interaction_id=interaction.id,
            score=found.score,
            threshold=self._threshold,
            asked_today=self._labels.count_added_since(now - DAY_SECONDS),
            daily_budget=self._budget,
            is_asked=self._is_settled(interaction.id),
            is_complete=interaction.finish_reason in (FinishReason.STOP, FinishReason.LENGTH),
            is_empty=not interaction.reply.strip(),
        )
        if should_ask(facts, self._policy_set).allowed:
            task = LabelTask(uuid.uuid4().hex, interaction.id, now, found.score, found.reason)
            self._labels.add(replace(task, other_id=self._other_answer(interaction)))

    def _other_answer(self, interaction: Interaction) -> str | None:
        """Where the same was answered twice in different words, people are asked which is better."""
        if interaction.finish_reason is not FinishReason.STOP:
            return None
        other = self._comparisons.other_answer(interaction)
        return None if other is None or self._is_settled(other) else other

    def _is_settled(self, interaction_id: str) -> bool:
        """Asked before, or already judged by a person without being asked."""
        if self._labels.for_interaction(interaction_id) is not None:
            return True
        return bool(self._interactions.feedback_for(interaction_id))
