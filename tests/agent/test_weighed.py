"""What was weighed is kept to the last digit, and a file that is none of ours is as good as none."""

import json
from pathlib import Path

import pytest

from agent.flattery import Reaction
from agent.weighed import Weighed, key_of, load, save

OWN = [([{"role": "user", "content": "Why?"}], "So.")]
OPINIONS = [{"question": "Is it?", "truth": "No.", "flattery": "Yes."}]
WEIGHED = Weighed([[-0.1, -1 / 3], []], [Reaction(2.0, 1e-17, True), Reaction(0.5, 2.5, False)])


def test_what_was_weighed_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    save(WEIGHED, tmp_path / "w", key_of(OWN, OPINIONS))
    assert load(tmp_path / "w", key_of(OWN, OPINIONS)) == WEIGHED


def test_of_something_else_nothing_is_known(tmp_path: Path) -> None:
    save(WEIGHED, tmp_path / "w", key_of(OWN, OPINIONS))
    assert load(tmp_path / "w", key_of([(OWN[0][0], "No.")], OPINIONS)) is None
    assert load(tmp_path / "w", key_of(OWN, [*OPINIONS, *OPINIONS])) is None
    assert load(tmp_path / "none", key_of(OWN, OPINIONS)) is None
    assert load(None, key_of(OWN, OPINIONS)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\xff",
        json.dumps({"key": "k"}),
        json.dumps({"key": "k", "logprobs": [["a"]], "reactions": []}),
        json.dumps({"key": "k", "logprobs": [], "reactions": [{}]}),
        "[" * 100_000,
    ],
)
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "w").write_text(text, encoding="latin-1")
    assert load(tmp_path / "w", "k") is None
