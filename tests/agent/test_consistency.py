"""How much further answers agree with the first, by their words and by their meanings."""

import math

import numpy as np
import pytest

from agent.consistency import SAMPLED_SIGNALS, Sampled, sampled_signal, self_consistency, semantic_entropy

NORTH, EAST = (1.0, 0.0), (0.0, 1.0)
NEARLY_NORTH = (0.9, math.sqrt(1 - 0.81))


def sampled(vectors: list[tuple[float, float]], samples: list[str] | None = None) -> Sampled:
    texts = samples or [f"answer {number}" for number in range(len(vectors))]
    return Sampled("Paris", texts, np.array(vectors, dtype=np.float32))


def test_inconsistency_is_the_share_of_samples_that_say_something_else() -> None:
    found = self_consistency(sampled([NORTH] * 4, ["Paris.", " paris", "Lyon", "It is Paris"]))
    assert found == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("vectors", "sizes"),
    [
        ([NORTH, NORTH, NORTH], [3]),
        ([NORTH, NEARLY_NORTH, EAST, NORTH], [3, 1]),
        ([NORTH, EAST, (-1.0, 0.0), (0.0, -1.0)], [1, 1, 1, 1]),
    ],
)
def test_semantic_entropy_is_that_of_the_sizes_of_the_meanings(
    vectors: list[tuple[float, float]], sizes: list[int]
) -> None:
    total = sum(sizes)
    assert semantic_entropy(sampled(vectors)) == pytest.approx(-sum(n / total * math.log(n / total) for n in sizes))


def test_the_order_in_which_meanings_come_does_not_matter() -> None:
    vectors = [NORTH, EAST, NORTH, EAST, EAST]
    assert semantic_entropy(sampled(vectors)) == pytest.approx(semantic_entropy(sampled(vectors[::-1])))


def test_without_samples_or_with_too_few_vectors_nothing_is_said() -> None:
    with pytest.raises(ValueError, match="0 samples and 0 vectors; draw one sample at least"):
        Sampled("Paris", [], np.empty((0, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="2 samples and 1 vectors"):
        sampled([NORTH], ["a", "b"])


def test_signals_over_samples_have_names_and_an_unknown_one_is_refused() -> None:
    assert sampled_signal("semantic_entropy") is semantic_entropy
    assert set(SAMPLED_SIGNALS) == {"self_consistency", "semantic_entropy"}
    with pytest.raises(ValueError, match="no signal over samples 'entropy'; there are self_consistency, "):
        sampled_signal("entropy")
