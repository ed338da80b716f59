"""Answers that a model gave when it was last measured: greedy, of one length, one file a model. A cache: it may be
deleted or broken, and is then empty.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store import artifacts
from store.audit import digest


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """JSON lines of `messages` and `answer`."""

    path: Path

    def known(self) -> dict[str, str]:
        """Answers by the digest of their messages."""
        return {digest(row["messages"]): row["answer"] for row in self._rows()}

    def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """These and no others: what is not asked any more need not be known."""
        each = {digest(row["messages"]): {"messages": row["messages"], "answer": row["answer"]} for row in rows}
        if {key: row["answer"] for key, row in each.items()} != self.known():
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in each.values())
            artifacts.write_file(self.path, "".join(lines).encode())

    def _rows(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8")
            # by "\n" alone: str.splitlines also splits within what was said
            rows = [_row(line) for line in text.split("\n") if line]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return []
        return rows


def _row(line: str) -> dict[str, Any]:
    """What can be asked for again. ValueError, KeyError, TypeError or RecursionError for what `keep` never wrote."""
    row = json.loads(line)
    digest(row["messages"])
    if not isinstance(row["answer"], str):
        raise TypeError(f"an answer is text, got {type(row['answer']).__name__}")
    return {"messages": row["messages"], "answer": row["answer"]}
