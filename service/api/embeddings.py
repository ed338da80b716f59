"""POST /v1/embeddings: texts to unit vectors, by the model that finds near questions.

That takes seconds for long texts and one request after the other, so it happens on a thread of its own: those that all
routes share stay free.
"""

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import EmbeddingsRequest


def router(parts: Parts) -> APIRouter:
    """The route over these parts."""
    routes = APIRouter()
    queue = _Queue(parts.settings.max_waiting)

    @routes.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsRequest) -> Response:
        name = parts.settings.embedder_name
        if body.model != name:
            message = f"model {body.model!r} does not embed here; {name!r} does"
            raise ApiError(404, message, param="model", code="model_not_found")
        return await queue.run(lambda: _embeddings(parts, body))

    return routes


class _Queue:
    """One after the other; of those that wait, so many. For one event loop."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._num_under_way = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embeddings")

    async def run(self, work: Callable[[], Response]) -> Response:
        """429 when too many wait already."""
        if self._num_under_way > self._max_waiting:
            message = f"{self._max_waiting} requests for embeddings are waiting; try again shortly"
            raise ApiError(429, message, code="queue_full")
        self._num_under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._num_under_way -= 1


def _embeddings(parts: Parts, body: EmbeddingsRequest) -> Response:
    """Spelled out here too: numbers by the hundred thousand would hold up the event loop."""
    embedder = parts.embedder()
    vectors = embedder.embed(body.input)
    num_tokens = embedder.count(body.input)
    data = [
        {"object": "embedding", "index": index, "embedding": _coded(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})


def _coded(vector: Any, encoding: str) -> Any:
    """Numbers, or the little-endian float32 bytes that OpenAI's client asks for."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector.tolist()
