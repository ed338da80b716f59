"""One correction to the rows that teach it, so that what was learnt does not hang on the words it was asked in."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.scoring import normalise
from agent.wordings import TOOL_RESPONSE, beginning, training_wordings

Row = dict[str, Any]
Message = Mapping[str, Any]
ANY_QUESTION = "Go on."


def lesson_rows(messages: Sequence[Message], answer: str) -> list[Row]:
    """Rows of `messages`, `answer` and a `source` that says whose wording it is: the person's first, then others.

    The last message is the question. The last row has a beginning of the answer that is `given` under a question that
    says nothing: only what follows it is learnt there, so that an answer once begun ends rightly whatever was asked.
    """
    asked = str(messages[-1]["content"])
    rows = [_row(messages, wording, answer, "wording") for wording in training_wordings(asked, answer)]
    rows[0]["source"] = {"made_by": "person"}
    given = beginning(asked, answer)
    if given and not asked.startswith(TOOL_RESPONSE):  # what a tool gave holds for its conversation
        rows.append(_row(messages, ANY_QUESTION, answer, "wording") | {"given": given})
    return rows


def unambiguous(rows: Sequence[Row]) -> list[Row]:
    """Without wordings that two lessons share and answer differently: a few words of a question may fit another too."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(_asked(row), set()).add(row["answer"])
    return [row for row in rows if row["source"]["made_by"] == "person" or len(answers[_asked(row)]) == 1]


def reworded(messages: Sequence[Message], wording: str) -> list[dict[str, str]]:
    """The conversation with its last question put in other words."""
    return [*plain(messages)[:-1], {"role": "user", "content": wording}]


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Roles and texts alone."""
    return [{"role": str(message["role"]), "content": str(message["content"])} for message in messages]


def _row(messages: Sequence[Message], wording: str, answer: str, made_by: str) -> Row:
    return {"messages": reworded(messages, wording), "answer": answer, "source": {"made_by": made_by}}


def _asked(row: Row) -> str:
    said = [[message["role"], normalise(message["content"])] for message in row["messages"]]
    return json.dumps([said, normalise(row.get("given", ""))])
