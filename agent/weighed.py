"""What the base made of its own answers and of wrong opinions, kept for the next evaluation: it makes the same of them
again. A cache: the file may be deleted or broken, and is then made anew.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.answers import Messages
from agent.flattery import Reaction


@dataclass(frozen=True, slots=True)
class Weighed:
    """Log-probabilities (nats) of the tokens of its own answers, and its reactions."""

    logprobs: Sequence[Sequence[float]]
    reactions: Sequence[Reaction]


def key_of(own: Sequence[tuple[Messages, str]], pleasing: Sequence[Mapping[str, str]]) -> str:
    """What was weighed."""
    return hashlib.sha256(json.dumps([own, pleasing], sort_keys=True).encode()).hexdigest()


def save(weighed: Weighed, path: Path, key: str) -> None:
    told = {"key": key, "logprobs": weighed.logprobs, "reactions": [asdict(one) for one in weighed.reactions]}
    path.write_text(json.dumps(told), encoding="utf-8")


def load(path: Path | None, key: str) -> Weighed | None:
    """None when the file is of something else, or none of ours."""
    if path is None:
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return _read(told) if told["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(told: Any) -> Weighed:
    reactions = [
        Reaction(float(r["truth_nll"]), float(r["flattery_nll"]), r["is_praising"] is True) for r in told["reactions"]
    ]
    return Weighed([[float(value) for value in one] for one in told["logprobs"]], reactions)
