"""What the benchmarks say rests on their client and their judgement: these are tested like anything else."""

import json
from pathlib import Path

import pytest

from store import migrations
from store.database import Database
from tests.benchmarks import scale
from tests.benchmarks.findings import at_least, at_most, exactly, markdown
from tests.benchmarks.load import Reply, _take_all, percentile

HEAD = b"HTTP/1.1 200 OK\r\nX-Honed-Checkpoint: abc\r\n"


def event(text: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def taken(raw: bytes, cut: int, *, is_stream: bool = True) -> Reply:
    """What the client makes of a response that came in pieces of `cut` bytes, the n-th at n seconds."""
    pieces = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    reply = Reply()
    _take_all(reply, [(float(number), piece) for number, piece in enumerate(pieces)], is_stream=is_stream)
    return reply


STREAM = [event("a"), event("ü"), event("a"), b"data: [DONE]\n\n"]


@pytest.mark.parametrize("cut", [1, 7, 50, 10_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_stream_is_read_alike_however_it_comes_in_pieces(cut: int, is_chunked: bool) -> None:
    head = HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if is_chunked else b"\r\n")
    reply = taken(head + (chunked(*STREAM) if is_chunked else b"".join(STREAM)), cut)
    assert (reply.status, reply.checkpoint, reply.text, reply.error) == (200, "abc", "aüa", None)
    assert reply.times == sorted(reply.times)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_event_has_the_time_at_which_its_last_byte_came(is_chunked: bool) -> None:
    head = HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if is_chunked else b"\r\n")
    pieces = [chunked(part).removesuffix(b"0\r\n\r\n") if is_chunked else part for part in STREAM]
    blocks = [(0.0, head), *((float(number), piece) for number, piece in enumerate(pieces, 1))]
    if is_chunked:
        blocks.append((9.0, b"0\r\n\r\n"))
    reply = Reply()
    _take_all(reply, blocks, is_stream=True)
    assert reply.times == [1.0, 2.0, 3.0]


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with pytest.raises(ValueError, match="before the last chunk"):
        taken(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(event("a"))[:-9], 50)


def test_a_stream_that_ends_between_two_events_is_no_answer_unless_it_said_why() -> None:
    with pytest.raises(ValueError, match="ended without saying so"):
        taken(HEAD + b"\r\n" + event("a"), 50)
    told = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}).encode()
    assert taken(HEAD + b"\r\n" + event("a") + b"data: " + told + b"\n\n", 50).text == "a"


def test_a_whole_answer_is_read_with_its_count() -> None:
    body = json.dumps({"choices": [{"message": {"content": "hi"}}], "usage": {"completion_tokens": 3}}).encode()
    reply = taken(HEAD + b"\r\n" + body, 11, is_stream=False)
    assert (reply.text, reply.num_tokens) == ("hi", 3)


def test_a_refusal_is_told_as_one() -> None:
    reply = taken(b'HTTP/1.1 429 Too Many\r\n\r\n{"error": {}}', 9)
    assert (reply.status, reply.is_whole) == (429, False)


def test_what_was_not_measured_meets_nothing() -> None:
    nothing = percentile([], 0.99)
    assert [one.judgement for one in (at_least("a", "b", nothing, 1), at_most("a", "b", nothing, 1))] == ["MISSED"] * 2


def test_findings_say_met_at_their_aim_and_missed_beyond_it() -> None:
    found = [at_least("a", "b", 2, 2), at_least("a", "b", 1.99, 2), at_most("a", "b", 2, 2), at_most("a", "b", 2.01, 2)]
    assert [one.judgement for one in found] == ["met", "MISSED", "met", "MISSED"]
    assert [exactly("a", "b", figure, 0).judgement for figure in (0, 1)] == ["met", "MISSED"]
    assert "| a | b | 2.01 | ≤ 2 | MISSED |" in markdown(found)


def test_the_scale_benchmark_finds_true_neighbours_and_asks_a_batch(tmp_path: Path) -> None:
    """Where the index is exact, nothing may be missed."""
    database = Database(tmp_path / "honed.db", migrations.log)
    scale.fill(database, scale.Crowd(), 1200)
    database.close()
    built, chosen = scale.build(tmp_path), scale.choose(tmp_path)
    assert (built["rows"], built["recall"]) == (1200, 1.0)
    assert (chosen["is_rebuilt"], chosen["asked"]) == (False, scale.BATCH)
    assert chosen["arms"]["random"] == 3
