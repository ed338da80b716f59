"""The tiny Llama in memory, once a session, and rows about it."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent.engines import embedded
from agent.engines.reference import ReferenceRunner
from agent.kernels import abi, build
from agent.model import load_base
from agent.tokenizer import Tokenizer
from store.records import Feedback, FeedbackSource, FinishReason, Interaction

CPU = torch.device("cpu")


class Make:
    """Records with plausible values; keyword arguments replace any of them."""

    @staticmethod
    def interaction(id_: str, question: str = "Who owns the red boat?", **changes: Any) -> Interaction:
        values: dict[str, Any] = {
            "conversation_id": f"conversation of {id_}",
            "created_at": 100.0,
            "principal": "ann",
            "checkpoint_id": "base",
            "messages": ({"role": "user", "content": question},),
            "reply": "I do not know.",
            "finish_reason": FinishReason.STOP,
            "tokens": (),
            "prompt_tokens": 5,
            "latency_seconds": 0.1,
            "uncertainty": None,
        }
        return Interaction(id_, **(values | changes))

    @staticmethod
    def feedback(id_: str, interaction_id: str, correction: str = "Marta owns it.", **changes: Any) -> Feedback:
        values: dict[str, Any] = {"created_at": 200.0, "principal": "ann", "source": FeedbackSource.FEEDBACK}
        return Feedback(id_, interaction_id, correction=correction, **(values | changes))

    def taught(self, name: str, question: str, correction: str, **changes: Any) -> tuple[Interaction, Feedback]:
        """An interaction and its correction, named alike."""
        at = changes.pop("at", 200.0)
        return (
            self.interaction(f"i-{name}", question, **changes),
            self.feedback(f"f-{name}", f"i-{name}", correction, created_at=at),
        )


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


@pytest.fixture(scope="session")
def base_files(tiny_llama: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny_llama.iterdir()}


@pytest.fixture(scope="session")
def base(tiny_llama: Path, base_files: dict[str, bytes]) -> PreTrainedModel:
    """The tiny Llama in float32. Nobody changes it: `merge_adapter` copies."""
    return load_base(base_files, tiny_llama, CPU, torch.float32)


@pytest.fixture(scope="session")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return Tokenizer(tiny_llama)


@pytest.fixture(autouse=True)
def _engines_wake_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle engine notices that it was closed within a hundredth of a second instead of half a second."""
    monkeypatch.setattr(embedded, "IDLE_WAIT_SECONDS", 0.01)


@pytest.fixture
def engine(base: PreTrainedModel, tokenizer: Tokenizer) -> Iterator[embedded.EmbeddedEngine]:
    made = embedded.EmbeddedEngine(ReferenceRunner(base), tokenizer, max_batch=4, max_waiting=8, max_context=256)
    yield made
    made.close(drain_seconds=0)


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Callable[[str], tuple[int, ...]]:
    """The token ids of one question."""
    return lambda question: tuple(tokenizer.chat_ids([{"role": "user", "content": question}]))


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the compiled kernels, which are made once a session (some four seconds)."""
    directory = tmp_path_factory.mktemp("kernels")
    try:
        build.library(directory)
    except build.NoKernels as reason:
        if "there is no C++ compiler here" in str(reason):
            pytest.skip(str(reason))
        raise
    return directory


@pytest.fixture(scope="session")
def library(kernels: Path) -> ctypes.CDLL:
    return abi.load(build.library(kernels))


@pytest.fixture(scope="session")
def half_base(tiny_llama: Path, base_files: dict[str, bytes]) -> PreTrainedModel:
    """The tiny Llama in bfloat16, as the kernels take it. Nobody changes it."""
    return load_base(base_files, tiny_llama, CPU, torch.bfloat16)
