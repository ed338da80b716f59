"""Evaluation suites and the prompts that anchor training: JSON lines shipped with the program, and how to read them."""

import json
from importlib.resources import files
from typing import Any


def load(name: str) -> list[dict[str, Any]]:
    """The items of a shipped suite: "retention" (question, keys) or "everyday" (question)."""
    text = files(__package__).joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]
