"""A small load generator for any OpenAI-compatible chat endpoint: many streams at once, each token's time noted.

It speaks HTTP/1.1 over plain asyncio sockets and reads what came only after the last byte has: on two cores, all that
the client does while the server works is taken from what it measures.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(slots=True)
class Reply:
    """One streamed answer, with times in seconds since its request was sent."""

    status: int = 0
    texts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of each chunk with text
    num_tokens: int = 0
    num_prompt: int = 0
    seconds: float = 0.0
    checkpoint: str | None = None
    error: str | None = None
    is_ended: bool = False  # a finish_reason came; not every server sends [DONE]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and self.error is None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, and under which name."""

    url: str
    model: str
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()


async def ask(endpoint: Endpoint, body: dict[str, Any]) -> Reply:
    """Send one request and read its answer to the end. A connection that breaks is told in `error`."""
    reply, began = Reply(), time.perf_counter()
    parts = urlsplit(endpoint.url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)
        try:
            writer.write(_request(endpoint, parts.netloc, {"model": endpoint.model, **body}))
            blocks = [(time.perf_counter() - began, block) async for block in _blocks(reader)]
        finally:
            writer.close()
        reply.seconds = time.perf_counter() - began
        _take_all(reply, blocks, is_stream=bool(body.get("stream")))
    except (OSError, ValueError, IndexError, KeyError) as error:
        reply.error = f"{type(error).__name__}: {error}"
        reply.seconds = reply.seconds or time.perf_counter() - began
    return reply


async def _blocks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while block := await reader.read(1 << 16):
        yield block


def _request(endpoint: Endpoint, host: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in endpoint.headers)
    head = f"POST {endpoint.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


def _take_all(reply: Reply, blocks: list[tuple[float, bytes]], *, is_stream: bool) -> None:
    """Head and body of one response that ended with its connection."""
    head, _, rest = b"".join(block for _, block in blocks).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    reply.status = int(lines[0].split(" ", 2)[1])
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    reply.checkpoint = headers.get("x-honed-checkpoint")
    is_chunked = "chunked" in headers.get("transfer-encoding", "")
    if not is_stream or reply.status != 200:
        _take_whole(reply, b"".join(_unchunked(rest)) if is_chunked else rest)
        return
    text, number, came = bytearray(), 0, len(blocks[0][1])
    start = len(head) + 4
    is_done = False
    for at, part in _parts(rest, is_chunked=is_chunked):  # `at`: where in the body the part ends
        while came < start + at:
            number += 1
            came += len(blocks[number][1])
        text += part
        while (end := text.find(b"\n\n")) >= 0:
            event = bytes(text[:end])
            del text[: end + 2]
            is_done = is_done or event.endswith(b"[DONE]")
            if event.startswith(b"data: ") and not event.endswith(b"[DONE]"):
                _take(reply, json.loads(event[6:]), blocks[number][0])
    if not (is_done or reply.is_ended or reply.error):
        raise ValueError("the stream ended without saying so")


def _parts(body: bytes, *, is_chunked: bool) -> Iterator[tuple[int, bytes]]:
    """Chunks with the place where each ends; without chunks, events."""
    at = 0
    if is_chunked:
        for chunk in _unchunked(body):
            at = body.index(chunk, at) + len(chunk)
            yield at, chunk
        return
    for event in body.split(b"\n\n"):
        at += len(event) + 2
        yield min(at, len(body)), event + b"\n\n"


def _unchunked(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return
        yield body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    raise ValueError("the connection ended before the last chunk")


def _take(reply: Reply, chunk: dict[str, Any], at: float) -> None:
    if "error" in chunk:
        reply.error = str(chunk["error"])
        return
    if chunk.get("usage"):
        reply.num_tokens = chunk["usage"]["completion_tokens"]
        reply.num_prompt = chunk["usage"]["prompt_tokens"]
    for choice in chunk.get("choices", ()):
        reply.is_ended = reply.is_ended or choice.get("finish_reason") is not None
        text = choice.get("delta", {}).get("content") or choice.get("text") or ""
        if text:
            reply.texts.append(text)
            reply.times.append(at)


def _take_whole(reply: Reply, raw: bytes) -> None:
    start = raw.find(b"{")
    if reply.status != 200 or start < 0:
        reply.error = raw[:300].decode(errors="replace")
        return
    body = json.loads(raw[start : raw.rfind(b"}") + 1])
    reply.texts = [body["choices"][0]["message"]["content"]]
    reply.num_tokens = body["usage"]["completion_tokens"]


async def streams(endpoint: Endpoint, bodies: list[dict[str, Any]], at_once: int) -> tuple[list[Reply], float]:
    """All of them, `at_once` at a time; the replies in order and the seconds it took."""
    gate, began = asyncio.Semaphore(at_once), time.perf_counter()

    async def one(body: dict[str, Any]) -> Reply:
        async with gate:
            return await ask(endpoint, body)

    replies = await asyncio.gather(*(one(body) for body in bodies))
    return list(replies), time.perf_counter() - began


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; NaN of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else float("nan")
