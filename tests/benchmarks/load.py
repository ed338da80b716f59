"""A small load generator for any OpenAI-compatible chat endpoint: many streams at once, each token's time noted.

It speaks HTTP/1.1 over plain asyncio sockets, since on two cores a full client library would take from the server what
it is to measure.
"""

import asyncio
import json
import time
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
            await writer.drain()
            await _read(reader, reply, began, is_stream=bool(body.get("stream")))
        finally:
            writer.close()
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        reply.error = f"{type(error).__name__}: {error}"
    reply.seconds = time.perf_counter() - began
    return reply


def _request(endpoint: Endpoint, host: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in endpoint.headers)
    head = f"POST {endpoint.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


async def _read(reader: asyncio.StreamReader, reply: Reply, began: float, *, is_stream: bool) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    reply.status = int(head.split(" ", 2)[1])
    for line in head.split("\r\n"):
        if line.lower().startswith("x-honed-checkpoint:"):
            reply.checkpoint = line.partition(":")[2].strip()
    if not is_stream or reply.status != 200:
        _take_whole(reply, await reader.read())
        return
    is_done = False
    while line := await reader.readline():
        if line.startswith(b"data: "):
            data = line[6:].strip()
            is_done = is_done or data == b"[DONE]"
            if data != b"[DONE]":
                _take(reply, json.loads(data), time.perf_counter() - began)
                is_done = is_done or reply.error is not None
    if not is_done and not reply.texts:
        raise ValueError("the stream ended without an answer")


def _take(reply: Reply, chunk: dict[str, Any], at: float) -> None:
    if "error" in chunk:
        reply.error = str(chunk["error"])
        return
    if chunk.get("usage"):
        reply.num_tokens = chunk["usage"]["completion_tokens"]
        reply.num_prompt = chunk["usage"]["prompt_tokens"]
    for choice in chunk.get("choices", ()):
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
