"""A log with what scores it and asks about it, over an embedder of words and a clock to set."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from policies.engine import PolicySet, shipped
from service.certainty import Certainty
from service.questions import Budget, Questions
from service.reasking import Doubt
from service.scoring import Scoring
from store import migrations
from store.comparisons import Comparisons
from store.database import Database
from store.interactions import Interactions
from store.labels import Labels
from store.pool import Pool
from store.records import FinishReason, Interaction, LabelTask, TokenTrace
from store.vectors import VectorIndex
from tests.fakes import SetClock, WordEmbedder


class Now:
    """What answers now, by interactions: its checkpoint and how unsure it is. Others it would answer as they were."""

    def __init__(self, doubts: dict[str, Doubt], limit: int | None) -> None:
        self._told, self.limit = doubts, limit
        self._found: dict[int, Doubt] = {}

    @property
    def is_as_logged(self) -> bool:
        return True

    @property
    def known(self) -> dict[int, Doubt]:
        return self._found

    def ask(self, rows: Iterable[tuple[int, Interaction | None, np.ndarray]]) -> int:
        known = [(key, one) for key, one, _ in rows if one is not None][: self.limit]
        self._found |= {key: self._told[one.id] for key, one in known if one.id in self._told}
        return len(known)


class Room:
    """One state directory; `scoring` opens its index as a restart does."""

    def __init__(self, state: Path) -> None:
        self.state, self.embedder, self.clock = state, WordEmbedder(), SetClock()
        self.db = Database(state / "honed.db", migrations.log)
        self.now: dict[str, Doubt] = {}
        self.now_limit: int | None = None  # so many rows, and the time is up
        self.interactions, self.labels, self.pool = Interactions(self.db), Labels(self.db), Pool(self.db)

    def scoring(self, by: str = "mean_entropy") -> Scoring:
        index = VectorIndex(self.state / "vectors.faiss", self.embedder.dim)
        return Scoring(
            interactions=self.interactions,
            pool=self.pool,
            index=index,
            embedder=self.embedder,
            signal_name=by,
            clock=self.clock,
        )

    def ask(
        self,
        *,
        per_day: int = 100,
        per_person: int = 100,
        threshold: float = 0.0,
        seed: int = 0,
        policy_set: PolicySet | None = None,
    ) -> int:
        """Score what is new, then one batch of questions."""
        return self.questions(Budget(per_day, per_person, threshold), seed, policy_set).ask()

    def questions(self, budget: Budget, seed: int = 0, policy_set: PolicySet | None = None) -> Questions:
        """When all that is new has its score."""
        scoring = self.scoring()
        while scoring.score_new():
            pass
        return Questions(
            interactions=self.interactions,
            labels=self.labels,
            comparisons=Comparisons(self.db),
            pool=self.pool,
            index=scoring.index,
            certainty=Certainty(self.interactions),
            reasking=Now(self.now, self.now_limit),
            policy_set=policy_set or shipped(),
            budget=budget,
            draw=np.random.default_rng(seed),
            clock=self.clock,
        )

    def add(self, name: str, text: str | None = None, **changes: object) -> None:
        told = changes.get("uncertainty", 1.0)
        entropy = 0.0 if told is None else float(str(told))
        values = {
            "conversation_id": name,
            "created_at": 1.0,
            "principal": "ann",
            "checkpoint_id": "base",
            "messages": ({"role": "user", "content": text or f"What is {name} {name}-ness like?"},),
            "reply": "An answer.",
            "finish_reason": FinishReason.STOP,
            "tokens": () if told is None else (TokenTrace(1, -entropy, entropy),),
            "prompt_tokens": 5,
            "latency_seconds": 0.1,
            "uncertainty": 1.0,
        }
        self.interactions.append(Interaction(name, **(values | changes)))

    def settled_warm_up(self, count: int = 15) -> None:
        """As many questions as begin a log, long ago."""
        for number in range(count):
            self.add(f"old{number}")
            self.labels.add(LabelTask(f"old{number}", f"old{number}", 1.0, 0.5, "long ago"))

    def tasks(self) -> list[LabelTask]:
        """Asked now, not long ago."""
        return [task for task in self.labels.open_tasks(1_000) if task.created_at > 1.0]

    def asked(self) -> set[str]:
        return {task.interaction_id for task in self.tasks()}
