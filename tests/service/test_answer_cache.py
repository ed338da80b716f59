"""Answers that are known already: kept line by line, and forgotten whole when a line is broken."""

from pathlib import Path

import pytest

from service.answer_cache import AnswerCache
from store.audit import digest


def row(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}], "answer": answer, "key": "left out"}


def known(*rows: dict[str, object]) -> dict[str, object]:
    return {digest(row["messages"]): row["answer"] for row in rows}


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers.jsonl")


def test_what_was_kept_last_is_known_and_nothing_else(cache: AnswerCache) -> None:
    assert cache.known() == {}
    cache.keep([row("one", "1"), row("two", "2")])
    cache.keep([row("two", "2"), row("three", "3"), row("three", "3")])
    assert cache.known() == known(row("two", "2"), row("three", "3"))
    written = cache.path.stat().st_ino
    cache.keep([row("three", "3"), row("two", "2")])
    assert cache.path.stat().st_ino == written  # nothing new, nothing written


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n", "\n"])
def test_an_answer_may_hold_whatever_ends_a_line_elsewhere(cache: AnswerCache, end: str) -> None:
    said = row(f"first{end}second", f"one{end}two{end}")
    cache.keep([said, row("more", "3")])
    assert cache.known() == known(said, row("more", "3"))


@pytest.mark.parametrize(
    "broken",
    [
        b'{"messages": [], "ans',
        b"[" * 100_000,
        b"3\n",
        b'{"messages": []}\n',
        b'{"messages": [], "answer": null}\n',
        b'{"messages": [NaN], "answer": ""}\n',
        b'{"messages": ["\\ud800"], "answer": ""}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_broken_cache_is_an_empty_one_and_is_written_anew(cache: AnswerCache, broken: bytes) -> None:
    cache.keep([row("one", "1")])
    with cache.path.open("ab") as file:
        file.write(broken)
    assert cache.known() == {}
    cache.keep([row("two", "2")])
    assert cache.known() == known(row("two", "2"))
