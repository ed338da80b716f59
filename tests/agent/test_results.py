"""Answers to figures: shares and their intervals, what there was to lose, drift."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.results import side_by_side, summarise, wilson_interval

JOB = {"num_train": 12, "num_judged": 0, "max_tokens": 32}
NLL = {"candidate": 0.1234567, "champion": 0.25, "base": 0.5}


def item(suite: str, key: str, expected: str = "") -> dict[str, Any]:
    return {
        "suite": suite,
        "messages": [{"role": "user", "content": "?"}],
        "expected": expected or key,
        "keys": [[key]],
    }


def summary(items: list[dict[str, Any]], candidate: list[str], champion: list[str], base: list[str]) -> dict[str, Any]:
    return summarise(side_by_side(items, {"candidate": candidate, "champion": champion, "base": base}), NLL, JOB)


# Wilson score intervals at 95 %: the first two by Newcombe (1998), table I, methods 3; the rest by hand.
@pytest.mark.parametrize(
    ("num_right", "num_items", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 5, 0.5655, 1.0),
    ],
)
def test_the_interval_has_its_published_values(num_right: int, num_items: int, low: float, high: float) -> None:
    assert wilson_interval(num_right, num_items) == pytest.approx((low, high), abs=1e-4)


def test_no_items_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_lies_in_zero_to_one_around_the_share(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)
    assert 0.0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1.0


def test_each_models_answer_is_scored_the_same_way_beside_the_others() -> None:
    answers = {"candidate": ["Marta."], "champion": ["It is Marta's, no: Marta"], "base": ["Ben"]}
    line = side_by_side([item("asked", "marta")], answers)[0]
    assert (line["suite"], line["question"], line["expected"]) == ("asked", "?", "marta")
    assert line["candidate"] == {"answer": "Marta.", "is_right": True, "is_exact": True}
    assert (line["champion"]["is_right"], line["champion"]["is_exact"]) == (True, False)
    assert (line["base"]["is_right"], line["base"]["is_exact"]) == (False, False)


def test_every_suite_is_reported_for_every_model_also_when_it_has_no_items() -> None:
    suites = summary([item("asked", "a")], ["a"], ["b"], ["b"])["suites"]
    assert set(suites) == {"asked", "paraphrase", "holdout", "retention"}
    assert suites["asked"]["candidate"]["num_right"] == 1
    assert suites["asked"]["champion"]["num_right"] == 0
    assert suites["holdout"]["base"] == {"num_right": 0, "num_exact": 0, "num_items": 0, "low": 0.0, "high": 1.0}


def test_retention_counts_only_what_the_base_gets_right() -> None:
    items = [item("retention", "a"), item("retention", "b"), item("retention", "c")]
    retention = summary(items, ["a", "x", "c"], ["a", "b", "x"], ["a", "b", "x"])["suites"]["retention"]
    counts = {name: (score["num_right"], score["num_items"]) for name, score in retention.items()}
    assert counts == {"candidate": (1, 2), "champion": (2, 2), "base": (2, 2)}


def test_earlier_repairs_are_those_that_the_champion_holds() -> None:
    items = [item("asked", "a"), item("asked", "b"), item("asked", "c"), item("retention", "d")]
    found = summary(items, ["a", "x", "c", "x"], ["a", "b", "x", "d"], ["x", "x", "x", "d"])
    assert found["repairs"] == {"num_items": 2, "num_lost": 1}


def test_what_was_asked_near_what_was_taught_is_only_counted_where_it_changed() -> None:
    items = [item("asked", "a"), item("nearby", "")] + [item("nearby", "")] * 2
    found = summary(items, ["a", "x", "y", "z"], ["b", "x", "y", "other"], ["b", "x", "y", "z"])
    assert found["nearby"] == {"num_items": 3, "num_changed": 1}
    assert "nearby" not in found["suites"]
    assert summary(items[:1], ["a"], ["b"], ["b"])["nearby"] == {"num_items": 0, "num_changed": 0}


def test_other_suites_count_also_what_the_base_gets_wrong() -> None:
    asked = summary([item("asked", "a"), item("asked", "b")], ["a", "b"], ["x", "b"], ["x", "x"])["suites"]["asked"]
    assert (asked["candidate"]["num_right"], asked["candidate"]["num_items"]) == (2, 2)


def test_length_ratio_compares_retention_answers_only() -> None:
    items = [item("retention", "a"), item("asked", "a")]
    assert summary(items, ["aaa", "aaaaaaaa"], ["a", "a"], ["aa", "a"])["length_ratio"] == 1.5
    assert summary([item("asked", "a")], ["aaaa"], ["a"], ["a"])["length_ratio"] is None


def test_the_summary_names_what_it_was_measured_on() -> None:
    whole = summary([], [], [], [])
    assert (whole["num_train"], whole["max_tokens"]) == (12, 32)
    assert whole["nll"] == {"candidate": 0.123457, "champion": 0.25, "base": 0.5}
