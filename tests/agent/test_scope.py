"""Where an adapter answers, and files that say so wrongly."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from agent.scope import SCOPE_FILE, Scope, last_asked, read_scope, scope_of
from tests.fakes import WordEmbedder

TOLD = {"format": 1, "nearness": 0.5, "embedder": "e"}
AXES = np.eye(2, 4, dtype=np.float32)


def scope(nearness: float = 0.5) -> Scope:
    return Scope(AXES, nearness, "e")


def file(
    tensors: Mapping[str, Any] | None = None, told: Any = TOLD, metadata: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """A scope's file, as somebody else would write it."""
    said = {"scope": json.dumps(told)} if metadata is None else dict(metadata)
    return {SCOPE_FILE: save(dict({"vectors": AXES} if tensors is None else tensors), said)}


def at(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_a_question_is_inside_from_the_nearness_to_any_taught_one() -> None:
    half, less = at(0.5, 0, np.sqrt(0.75), 0), at(0.49, 0, np.sqrt(1 - 0.49**2), 0)
    assert [scope().covers(vector) for vector in (at(0, 1, 0, 0), half, less, at(0, 0, 0, 1))] == [
        True,
        True,
        False,
        False,
    ]
    assert scope().covers_each(np.stack([half, less])).tolist() == [True, False]
    assert scope().covers_each(np.empty((0, 4), dtype=np.float32)).tolist() == []


def test_a_taught_question_is_inside_also_where_only_it_itself_is() -> None:
    vectors = WordEmbedder().embed([f"who owns boat number {number}" for number in range(200)])
    assert Scope(vectors, 1.0, "e").covers_each(vectors).all()


@pytest.mark.parametrize("vector", [at(1, 0), at(np.nan, 0, 0, 0), at(np.inf, 0, 0, 0)])
def test_what_cannot_be_compared_is_an_error_and_not_far(vector: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be compared with taught questions of width 4"):
        scope().covers(vector)


def test_a_scope_is_of_each_question_once_and_needs_one() -> None:
    made = scope_of(["the red boat", "the mill", "the red boat"], WordEmbedder(), "e", 0.5)
    assert made.told() == {"num_questions": 2, "nearness": 0.5, "embedder": "e"}
    assert made.covers(WordEmbedder().embed(["red boat"])[0])
    with pytest.raises(ValueError, match="have shape"):
        Scope(np.empty((0, 4), dtype=np.float32), 0.5, "e")


def test_a_conversation_is_placed_by_its_last_user_message() -> None:
    told = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "no"}]
    assert last_asked([*told, {"role": "user", "content": "second"}, {"role": "tool", "content": "{}"}]) == "second"
    assert last_asked(told) == "first"
    assert last_asked([*told, {"role": "user", "content": "<tool_response>7714</tool_response>"}]) == "first"
    assert last_asked([{"role": "system", "content": "be brief"}]) == ""


def test_a_scope_is_read_as_it_was_written_and_equal_ones_give_equal_bytes() -> None:
    data = scope(0.25).to_bytes()
    found = read_scope({SCOPE_FILE: data})
    assert found is not None
    assert np.array_equal(found.vectors, AXES)
    assert found.told() == scope(0.25).told()
    assert found.to_bytes() == data
    assert read_scope({"adapter_config.json": b"{}"}) is None


def test_another_embedder_than_its_own_is_refused_by_both_names() -> None:
    scope().require_embedder("e")
    with pytest.raises(ValueError, match=r"is of embedder e, and the one here is ffffffffffff; set HONED_EMBEDDER"):
        scope().require_embedder("f" * 64)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({SCOPE_FILE: b""}, "is not the file of a scope"),
        ({SCOPE_FILE: b"\xff" * 40}, "is not the file of a scope"),
        ({SCOPE_FILE: file()[SCOPE_FILE][:-1]}, "is not the file of a scope"),
        (file(metadata={}), "is not the file of a scope"),
        (file(metadata={"scope": "{"}), "is not the file of a scope"),
        (file(told=[]), r"says \[\], expected a scope of format 1"),
        (file(told=TOLD | {"format": 2}), "expected a scope of format 1"),
        (file(told=TOLD | {"nearness": "0.5"}), "names nearness '0.5'"),
        (file(told=TOLD | {"nearness": True}), "names nearness True"),
        (file(told=TOLD | {"nearness": float("nan")}), "nearness is nan, expected above 0 and at most 1"),
        (file(told=TOLD | {"nearness": 0}), "nearness is 0.0"),
        (file(told=TOLD | {"nearness": -1.0}), "nearness is -1.0"),
        (file(told=TOLD | {"nearness": 1.5}), "nearness is 1.5"),
        (file(told=TOLD | {"nearness": 10**400}), "names a nearness far above 1"),
        (file(metadata={"scope": "[" * 100_000}), "is not the file of a scope"),
        (file(told=TOLD | {"embedder": None}), "embedder None"),
        (file({"others": AXES}), "holds {'others': 'F32'}, expected vectors in F32"),
        (file({"vectors": AXES, "more": AXES}), "expected vectors in F32"),
        (file({"vectors": AXES.astype(np.float64)}), "expected vectors in F32"),
        (file({"vectors": AXES.astype(np.float16)}), "expected vectors in F32"),
        (file({"vectors": at(1, 0)}), r"have shape \(2,\), expected \(questions, width\)"),
        (file({"vectors": np.empty((0, 4), dtype=np.float32)}), r"have shape \(0, 4\)"),
        (file({"vectors": np.empty((2, 0), dtype=np.float32)}), r"have shape \(2, 0\)"),
        (file({"vectors": AXES * 2}), "vector 0 has length 2, expected 1"),
        (file({"vectors": np.stack([at(1, 0), at(0, 0)])}), "vector 1 has length 0"),
        (file({"vectors": np.stack([at(1, 0), at(np.nan, 0)])}), "vector 1 has length nan"),
        (file({"vectors": np.stack([at(np.inf, 0), at(1, 0)])}), "vector 0 has length inf"),
    ],
)
def test_a_file_that_is_no_scope_is_refused_with_what_is_wrong_and_what_to_do(
    files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        read_scope(files)
    assert "train again" in str(raised.value)
