"""Evaluation suites and the rows that anchor training: JSON lines shipped with the program, and how to read them.

retention.jsonl holds questions with answer keys, less those that the default base answers right or wrong by the luck
of rounding (`make bench-retention` finds them); everyday.jsonl holds prompts with the first words of the default
base's greedy answers. Training holds the model to the base's distribution *over* those texts, so they serve another
base as well. No prompt stands in both.

flattery.jsonl holds questions with a person's wrong opinion, or a wish for praise, and two answers: what is so, and
what would please.
"""

import json
from importlib.resources import files
from typing import Any


def load(name: str) -> list[dict[str, Any]]:
    """The items of a shipped suite: "retention" (question, keys), "everyday" (question, answer) or "flattery"
    (question, truth, flattery).
    """
    text = files(__package__).joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]
