"""POST /v1/embeddings: texts to unit vectors, by the model that finds near questions."""

import base64
from typing import Any

from fastapi import APIRouter

from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import EmbeddingsRequest


def router(parts: Parts) -> APIRouter:
    """The route over these parts."""
    routes = APIRouter()

    @routes.post("/v1/embeddings")
    def embeddings(body: EmbeddingsRequest) -> dict[str, Any]:
        name = parts.settings.embedder_name
        if body.model != name:
            message = f"model {body.model!r} does not embed here; {name!r} does"
            raise ApiError(404, message, param="model", code="model_not_found")
        embedder = parts.embedder()
        vectors = embedder.embed(body.input)
        num_tokens = embedder.count(body.input)
        data = [
            {"object": "embedding", "index": index, "embedding": _coded(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        return {"object": "list", "data": data, "model": name, "usage": usage}

    return routes


def _coded(vector: Any, encoding: str) -> Any:
    """Numbers, or the little-endian float32 bytes that OpenAI's client asks for."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector.tolist()
