"""How sure a checkpoint's answers may be taken: people's judgements of them, and what follows for the others."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

import numpy as np

from agent.certainty import Report
from agent.detection import Example, Knowledge, learn
from store.interactions import Interactions
from store.records import TokenTrace


@dataclass(frozen=True, slots=True)
class _Known:
    num_feedback: int
    knowledge: Knowledge | None


class Certainty:
    """Works it out again when somebody has said something since. Thread-safe."""

    def __init__(self, interactions: Interactions) -> None:
        self._interactions = interactions
        self._known: dict[str, _Known] = {}
        self._lock = Lock()

    def report(self, checkpoint_id: str) -> Report | None:
        """None while too few of this checkpoint's answers were judged."""
        knowledge = self._of(checkpoint_id)
        return knowledge.report if knowledge else None

    def reports(self) -> list[dict[str, Any]]:
        """Of every checkpoint any of whose answers were judged, the one that answered last first: its id, and its
        report where enough were. Worked out from what was said, which is kept for ever.
        """
        found = [(id_, self.report(id_)) for id_ in self._interactions.judged_checkpoints()]
        return [{"checkpoint": id_, "report": asdict(report) if report else None} for id_, report in found]

    def probability_wrong(
        self, checkpoint_id: str, tokens: Sequence[TokenTrace], vector: Sequence[float]
    ) -> float | None:
        """Of an answer of this checkpoint to a question with this vector (dim,); None while that cannot be told."""
        knowledge = self._of(checkpoint_id)
        if knowledge is None:
            return None
        return knowledge.probability_wrong(tokens, np.asarray(vector, dtype=np.float32))

    def _of(self, checkpoint_id: str) -> Knowledge | None:
        with self._lock:
            num_feedback = self._interactions.count_feedback()
            known = self._known.get(checkpoint_id)
            if known is None or known.num_feedback != num_feedback:
                examples = [Example(*row) for row in self._interactions.judged(checkpoint_id)]
                known = self._known[checkpoint_id] = _Known(num_feedback, learn(examples))
            return known.knowledge
