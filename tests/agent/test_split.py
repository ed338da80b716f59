"""Conversations that ask alike stay on one side."""

import numpy as np

from agent.split import together

NORTH, NEARLY, EAST, NONE = (1.0, 0.0), (0.9, 0.436), (0.0, 1.0), (0.0, 0.0)
NORTH_EAST = (0.707, 0.707)


def grouped(*asked: tuple[str, tuple[float, float]]) -> dict[str, str]:
    return together([name for name, _ in asked], np.array([vector for _, vector in asked], dtype=np.float32))


def test_what_is_asked_alike_is_named_by_the_oldest_of_them() -> None:
    assert grouped(("a", NORTH), ("b", EAST), ("c", NEARLY)) == {"a": "a", "b": "b", "c": "a"}


def test_a_question_between_two_groups_joins_them_under_the_oldest() -> None:
    assert grouped(("a", EAST), ("b", NORTH), ("c", NEARLY), ("d", NORTH_EAST)) == {
        "a": "a",
        "b": "b",
        "c": "b",
        "d": "b",
    }
    assert grouped(("a", (0.6, 0.8)), ("b", NORTH), ("c", NEARLY)) == dict.fromkeys("abc", "a")


def test_a_conversation_with_several_questions_is_one() -> None:
    assert grouped(("a", NORTH), ("b", EAST), ("b", NEARLY), ("c", EAST)) == dict.fromkeys("abc", "a")


def test_what_has_no_vector_is_like_nothing() -> None:
    assert grouped(("a", NONE), ("b", NONE), ("c", NORTH)) == {"a": "a", "b": "b", "c": "c"}


def test_more_questions_do_not_rename_a_group() -> None:
    first = grouped(("a", NORTH), ("b", NEARLY))
    later = grouped(("a", NORTH), ("b", NEARLY), ("c", NORTH), ("d", EAST))
    assert {name: later[name] for name in first} == first
