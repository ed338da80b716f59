"""Every new interaction gets a vector, a novelty and a score, and a place in the pool of possible questions."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import structlog

from agent.acquisition.factors import SEARCHED, demand, density, ranked, score
from agent.embedding import Embedder, Vectors
from agent.uncertainty import signal
from store.interactions import Interactions
from store.pool import Pool
from store.records import Interaction
from store.vectors import VectorIndex

log = structlog.get_logger()

BATCH = 64
PROBED = 4  # questions embedded anew, of the first and of the last scored, to tell whose the vectors are
SAME = 0.01  # in each dimension, whatever the machine rounds; another embedder's are ten times as far in some
WINDOW = 200  # recent answers that an uncertainty is ranked among as it comes in


class Scoring:
    """Runs in the daemon's background, never on a request's path."""

    def __init__(
        self,
        *,
        interactions: Interactions,
        pool: Pool,
        index: VectorIndex,
        embedder: Embedder,
        signal_name: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._pool = pool
        self.index = index
        self._embedder = embedder
        self._signal = signal(signal_name)
        self._clock = clock
        if not self._is_of_this_embedder():
            reason = "another embedder gives the questions other vectors: all are embedded and scored anew"
            log.info("vectors.dropped", reason=reason, num_answers=pool.forget())
        if index.load_or_rebuild(self._rows):
            index.save()
        num_changed = pool.keep_to(signal_name, self._signal)
        if num_changed:
            log.info("pool.ranked_anew", signal=signal_name, num_answers=num_changed)

    def score_new(self) -> int:
        """Score what is unscored, oldest first; returns how many."""
        pending = self._interactions.unscored(BATCH)
        if not pending:
            return 0
        vectors = self._embedder.embed([interaction.question for interaction in pending])
        for interaction, vector in zip(pending, vectors, strict=True):
            self._score(interaction, vector)
        if self.index.is_outgrown:
            self.index.rebuild(self._rows)
        if self.index.is_save_due:
            self.index.save()
        return len(pending)

    def _is_of_this_embedder(self) -> bool:
        """Whether the vectors that there are can be compared with new ones. Told by themselves, since another embedder
        may have the same width or name.
        """
        held = self._interactions.first_and_last_embedded(PROBED)
        if not held:
            return True
        fresh = self._embedder.embed([interaction.question for interaction, _ in held])
        return all(
            old.shape == new.shape and np.allclose(old, new, rtol=0, atol=SAME, equal_nan=True)
            for (_, old), new in zip(held, fresh, strict=True)
        )

    def _score(self, interaction: Interaction, vector: Vectors) -> None:
        """What it is worth by what is known now; which questions are asked is decided later, beside the others."""
        cosines = self.index.neighbours(vector.reshape(1, -1), SEARCHED)
        novelty = 1.0 - max(0.0, float(np.nan_to_num(cosines[0, 0], nan=0.0)))
        uncertainty = self._signal(interaction.tokens)
        product = self._rank(interaction.checkpoint_id, uncertainty) * demand(np.ones(1, dtype=np.int64))
        worth = float(score(product, density(cosines))[0])
        key = question_key(interaction)
        self._interactions.add_score(
            interaction.id,
            [float(x) for x in vector],
            worth,
            max(0.0, novelty),
            self._clock(),
            question=key,
            uncertainty=uncertainty,
        )
        self.index.add(interaction.id, vector)

    def _rank(self, checkpoint_id: str, uncertainty: float | None) -> float:
        if uncertainty is None:
            return 0.0
        recent = self._pool.recent_uncertainties(checkpoint_id, WINDOW)
        column = np.array([*recent, uncertainty], dtype=np.float64)
        return float(ranked(column, np.zeros(len(column), dtype=np.int64))[0][-1])

    def _rows(self) -> Iterable[tuple[Sequence[str], Vectors]]:
        return self._interactions.vectors(self.index.dim)


def question_key(interaction: Interaction) -> int:
    """The same for the same conversation up to this answer, whatever its case and spacing; 64 bits, signed."""
    said = [[str(m["role"]), " ".join(str(m["content"]).casefold().split())] for m in interaction.messages]
    digest = hashlib.blake2b(json.dumps(said).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
