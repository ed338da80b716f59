"""Kinds of question in an evaluation, each scored by itself."""

from typing import Any

import numpy as np

from agent.clusters import Vectors
from agent.slices import MIN_SIZE, slices


def line(question: str, *, now: bool, before: bool = True) -> dict[str, Any]:
    sides = {"candidate": now, "champion": before, "base": False}
    return {"suite": "asked", "question": question, **{model: {"is_right": right} for model, right in sides.items()}}


def about(kind: int, count: int, seed: int = 0) -> Vectors:
    """Unit vectors near one of four directions."""
    rows = np.eye(4, 16)[kind] + np.random.default_rng(seed).normal(0, 0.02, (count, 16))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_a_kind_that_falls_shows_beside_others_that_rise() -> None:
    lines = [line("Where is the ferry?", now=True, before=False)] * 40 + [line("Who leads the choir?", now=False)] * 20
    found = slices(lines, np.concatenate([about(0, 40), about(1, 20)]))
    rights = {one["name"]: (one["num_items"], one["num_right"]) for one in found}
    fallen = [one["name"] for one in found if one["num_lost"]]
    assert sum(one["num_lost"] for one in found) == 20
    assert all("choir" in name for name in fallen)
    assert fallen
    assert sum(rights[name][0] for name in fallen) == 20
    assert sum(one["num_right"]["candidate"] for one in found) == 40


def test_every_question_is_in_one_kind_and_no_kind_is_small() -> None:
    sizes = (MIN_SIZE * 3, MIN_SIZE, MIN_SIZE - 1, 2)
    vectors = np.concatenate([about(kind, size, seed=kind) for kind, size in enumerate(sizes)])
    found = slices([line(f"What about {n}?", now=True) for n in range(sum(sizes))], vectors)
    assert sum(one["num_items"] for one in found) == sum(sizes)
    assert min(one["num_items"] for one in found) >= MIN_SIZE
    assert [one["num_items"] for one in found] == sorted((one["num_items"] for one in found), reverse=True)


def test_the_same_evaluation_has_the_same_kinds() -> None:
    vectors = about(0, 60, seed=3)
    lines = [line(f"What is {n}?", now=n % 2 == 0) for n in range(60)]
    assert slices(lines, vectors) == slices(lines, vectors)


def test_what_nobody_can_judge_is_in_no_kind() -> None:
    judged = [line("Who leads the choir?", now=True)] * MIN_SIZE
    nearby = [line("Who sings in the choir?", now=False) | {"suite": "nearby"}] * MIN_SIZE
    (one,) = slices([*nearby, *judged], about(0, 2 * MIN_SIZE))
    assert (one["num_items"], one["num_right"]["candidate"]) == (MIN_SIZE, MIN_SIZE)


def test_too_few_questions_make_no_kind() -> None:
    few = MIN_SIZE - 1
    assert slices([line("Why?", now=True)] * few, about(0, few)) == []


def test_questions_of_no_words_have_a_name_all_the_same() -> None:
    (one,) = slices([line("??", now=True)] * MIN_SIZE, about(0, MIN_SIZE))
    assert one["name"] == "–"
