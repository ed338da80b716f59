"""What people ask about: all embedded questions in clusters, learnt from a sample and named by its words."""

import numpy as np

from agent.clusters import Cluster, Floats, Ints, assign, centres, describe, names
from store.interactions import Interactions
from store.pool import Pool

MAX_CLUSTERS = 200
MIN_SIZE = 5  # questions to a cluster on average: fewer are no group
SAMPLE = 20_000
NAMED_BY = 2000  # questions whose words are read
RECENT_SHARE = 0.2
SEED = 0


class Clusters:
    """Reads; changes nothing."""

    def __init__(self, interactions: Interactions, pool: Pool) -> None:
        self._interactions = interactions
        self._pool = pool

    def found(self, count: int) -> list[Cluster]:
        """At most `count`, largest first; the same from the same log."""
        dim = self._pool.dim()
        columns = self._pool.columns()
        if dim is None or not len(columns.seq):
            return []
        draw = np.random.default_rng(SEED)
        sample = draw.permutation(columns.seq)[:SAMPLE]
        vectors = self._pool.vectors(sample.tolist(), dim)
        vectors = vectors[vectors.any(axis=1)]  # another embedder's have none of this length
        middles = centres(vectors, min(count, max(1, len(vectors) // MIN_SIZE)), draw)
        cluster = np.full(len(columns.seq), -1, dtype=np.int64)
        novelty = np.zeros(len(columns.seq))
        for seqs, rows, new in self._pool.embedded(dim):
            known = np.isin(seqs, columns.seq)  # what was scored meanwhile is left out
            places = np.searchsorted(columns.seq, seqs[known])
            cluster[places], novelty[places] = assign(rows[known], middles), new[known]
        named = self._names(columns.seq, cluster, sample[:NAMED_BY], len(middles))
        is_recent = np.arange(len(cluster)) >= (1.0 - RECENT_SHARE) * len(cluster)
        has, wrong = cluster >= 0, self._wrong(columns.seq)
        return describe(cluster[has], columns.uncertainty[has], novelty[has], wrong[has], is_recent[has], named)

    def _wrong(self, seq: Ints) -> Floats:
        """1 where people said that the answer is wrong, 0 where right, NaN where nobody said."""
        found = np.full(len(seq), np.nan)
        said, wrong = self._interactions.judgements()
        known = np.isin(said, seq)
        found[np.searchsorted(seq, said[known])] = wrong[known]
        return found

    def _names(
        self,
        seq: np.ndarray[tuple[int], np.dtype[np.int64]],
        cluster: np.ndarray[tuple[int], np.dtype[np.int64]],
        sample: np.ndarray[tuple[int], np.dtype[np.int64]],
        count: int,
    ) -> list[str]:
        places = np.searchsorted(seq, sample)
        pairs = zip(self._pool.ids(sample.tolist()), cluster[places], strict=True)
        turns = [(self._interactions.get(id_), number) for id_, number in pairs if number >= 0]
        told = [(turn.question, number) for turn, number in turns if turn is not None]
        return names([text for text, _ in told], np.array([n for _, n in told], dtype=np.int64), count)
