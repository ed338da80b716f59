"""Where an adapter answers: near the questions it was taught. One safetensors file beside its weights.

Knows vectors and which embedder they are of. Who makes them, and who answers elsewhere, is decided by others.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_safetensors

from agent.embedding import Embedder, Vectors
from agent.wordings import TOOL_RESPONSE

SCOPE_FILE = "scope.safetensors"
FORMAT = 1
ROUNDING = 1e-5  # of a cosine in float32: a taught question is near itself also where the nearness is 1
UNIT = 1e-3  # how far from 1 the length of a unit vector may be
NEXT_STEP = "restore the file from a backup, or train again"


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Unit `vectors` (N, dim) of the taught questions, by the embedder of this id. A question is inside from a cosine
    of `nearness` to one of them. ValueError when that is not what they are.
    """

    vectors: Vectors
    nearness: float
    embedder: str

    def __post_init__(self) -> None:
        shape = self.vectors.shape
        if self.vectors.ndim != 2 or 0 in shape:
            raise ValueError(f"a scope's vectors have shape {shape}, expected (questions, width); {NEXT_STEP}")
        if self.vectors.dtype != np.float32:
            raise ValueError(f"a scope's vectors are {self.vectors.dtype}, expected float32; {NEXT_STEP}")
        lengths = np.linalg.norm(self.vectors, axis=1)
        wrong = ~(np.abs(lengths - 1.0) <= UNIT)  # so that what is not a number is wrong too
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(f"a scope's vector {at} has length {lengths[at]:g}, expected 1; {NEXT_STEP}")
        if not 0.0 < self.nearness <= 1.0:
            raise ValueError(f"a scope's nearness is {self.nearness}, expected above 0 and at most 1; {NEXT_STEP}")

    @property
    def num_questions(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def told(self) -> dict[str, Any]:
        """What people are shown of it."""
        return {"num_questions": self.num_questions, "nearness": self.nearness, "embedder": self.embedder}

    def require_embedder(self, embedder_id: str) -> None:
        """ValueError when its vectors cannot be compared with that embedder's."""
        if self.embedder != embedder_id:
            raise ValueError(
                f"{SCOPE_FILE} is of embedder {self.embedder[:12]}, and the one here is {embedder_id[:12] or 'none'}; "
                "set HONED_EMBEDDER back, or go back to another checkpoint (honed rollback) and train again"
            )

    def covers(self, vector: Vectors) -> bool:
        """Whether a question with this unit vector (dim,) is inside."""
        return bool(self.covers_each(vector.reshape(1, -1))[0])

    def covers_each(self, vectors: Vectors) -> npt.NDArray[np.bool_]:
        """The same of many, (M, dim) to (M,). ValueError for vectors of another width or that hold no numbers: to take
        them for far ones would be a guess.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or not np.isfinite(vectors).all():
            raise ValueError(
                f"vectors of shape {vectors.shape} cannot be compared with taught questions of width {self.dim}; "
                "they must be finite and of the scope's own embedder"
            )
        nearest: npt.NDArray[np.float32] = (vectors @ self.vectors.T).max(axis=1)
        return nearest >= self.nearness - ROUNDING

    def to_bytes(self) -> bytes:
        """The file. Equal scopes give equal bytes."""
        told = json.dumps({"format": FORMAT, "nearness": self.nearness, "embedder": self.embedder}, sort_keys=True)
        return bytes(save_safetensors({"vectors": np.ascontiguousarray(self.vectors)}, {"scope": told}))


def read_scope(files: Mapping[str, bytes]) -> Scope | None:
    """The scope among an adapter's files; None when it answers everywhere. ValueError says what is wrong with it."""
    data = files.get(SCOPE_FILE)
    if data is None:
        return None
    try:
        tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]
        told = json.loads(_metadata(data)["scope"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{SCOPE_FILE} is not the file of a scope: {error!r}; {NEXT_STEP}") from error
    if set(tensors) != {"vectors"} or tensors["vectors"]["dtype"] != "F32":
        held = {name: tensor["dtype"] for name, tensor in tensors.items()}
        raise ValueError(f"{SCOPE_FILE} holds {held}, expected vectors in F32; {NEXT_STEP}")
    raw = tensors["vectors"]
    vectors = np.frombuffer(raw["data"], dtype="<f4").reshape(raw["shape"]).astype(np.float32)
    return Scope(vectors, *_checked(told))


def scope_of(questions: Iterable[str], embedder: Embedder, embedder_id: str, nearness: float) -> Scope:
    """The scope of an adapter that is taught these questions. ValueError when there are none."""
    return Scope(embedder.embed(list(dict.fromkeys(questions))), nearness, embedder_id)


def last_asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a conversation is placed by: the last message that a person wrote, what a tool gave is none; empty when
    there is no such message.
    """
    said = (str(message["content"]) for message in reversed(messages) if message["role"] == "user")
    return next((text for text in said if not text.startswith(TOOL_RESPONSE)), "")


def _checked(told: Any) -> tuple[float, str]:
    """Nearness and embedder, out of what a file says of itself."""
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ValueError(f"{SCOPE_FILE} says {told!r}, expected a scope of format {FORMAT}; {NEXT_STEP}")
    nearness, embedder = told.get("nearness"), told.get("embedder")
    if not isinstance(nearness, int | float) or isinstance(nearness, bool) or not isinstance(embedder, str):
        raise ValueError(f"{SCOPE_FILE} names nearness {nearness!r} and embedder {embedder!r}; {NEXT_STEP}")
    try:
        return float(nearness), embedder
    except OverflowError as error:  # JSON's whole numbers have no end
        raise ValueError(f"{SCOPE_FILE} names a nearness far above 1; {NEXT_STEP}") from error


def _metadata(data: bytes) -> dict[str, str]:
    """The safetensors header's own words; the reader of tensors, which checked the header, does not give them."""
    size = int.from_bytes(data[:8], "little")
    told: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return told
