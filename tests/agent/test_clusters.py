"""Clusters of questions: found again, named by what sets them apart, and described."""

import numpy as np
import pytest

from agent.clusters import assign, centres, describe, names, spread

DIM = 16


def groups(count: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around `count` axes, mixed, and which axis each belongs to."""
    draw = np.random.default_rng(seed)
    axis = draw.permutation(np.repeat(np.arange(count), each))
    vectors = np.eye(count, DIM)[axis] + 0.1 * draw.normal(size=(count * each, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), axis


def test_groups_that_lie_apart_are_found_again() -> None:
    vectors, axis = groups(6, 40)
    found = assign(vectors, centres(vectors, 6, np.random.default_rng(0)))
    assert len({(a, c) for a, c in zip(axis, found, strict=True)}) == 6


def test_the_same_seed_finds_the_same_centres() -> None:
    vectors, _ = groups(5, 20)
    first, second = (centres(vectors, 5, np.random.default_rng(3)) for _ in range(2))
    assert (first == second).all()
    assert np.linalg.norm(first, axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_are_never_more_clusters_than_different_rows(count: int) -> None:
    vectors = np.repeat(np.eye(max(count, 1), DIM, dtype=np.float32)[:count], 4, axis=0)
    found = centres(vectors, 8, np.random.default_rng(0))
    assert found.shape == (count, DIM)
    assert assign(vectors, found).shape == (4 * count,)


def test_a_cluster_is_named_by_words_the_others_do_not_use() -> None:
    questions = [
        "What is the capital of Peru?",
        "Which capital has Chile?",
        "Please sort this list",
        "Sort the numbers",
    ]
    named = names(questions, np.array([0, 0, 1, 1]), 2)
    assert named[0].startswith("capital")
    assert named[1].startswith("sort")


def test_of_each_kind_the_first_is_taken_in_order_and_copies_are_one_kind() -> None:
    kinds = np.eye(3, 4, dtype=np.float32)
    vectors = kinds[[0, 0, 2, 0, 1, 2]]
    assert spread(vectors, 3, np.random.default_rng(0)) == [0, 2, 4]
    assert spread(vectors, 16, np.random.default_rng(0)) == [0, 2, 4]
    assert spread(vectors[:0], 3, np.random.default_rng(0)) == []


def test_a_cluster_without_words_has_an_empty_name() -> None:
    assert names(["1 + 1?", "the of"], np.array([0, 0]), 2) == ["", ""]


def test_clusters_tell_their_size_doubt_novelty_and_drift() -> None:
    cluster = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    unsure = np.array([1.0, 3.0, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan])
    is_recent = np.array([0, 1, 1, 0, 0, 0, 1, 1], dtype=bool)
    wrong = np.array([1.0, np.nan, 0.0, *[np.nan] * 5])
    large, small = describe(cluster, unsure, np.arange(8) / 10, wrong, is_recent, ["few", ""])
    assert (large.name, large.size, large.uncertainty) == ("–", 5, None)
    assert (small.name, small.size, small.uncertainty) == ("few", 3, 2.0)
    assert (small.error, small.num_judged) == (0.5, 2)
    assert (large.error, large.num_judged) == (None, 0)
    assert small.novelty == pytest.approx(0.1)
    assert small.drift == pytest.approx(0.25)
    assert large.drift == pytest.approx(-0.25)


def test_without_earlier_questions_nothing_drifts() -> None:
    (only,) = describe(np.zeros(3, dtype=int), np.ones(3), np.ones(3), np.zeros(3), np.ones(3, dtype=bool), ["all"])
    assert only.drift == 0.0
