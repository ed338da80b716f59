"""Who answers: built beside, smoke-tested, flipped."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load, save
from transformers import PreTrainedModel

from agent.embedding import EmbedderError
from agent.engine import EngineBusy, Event, Finished, GenerationRequest, Sampling, Token, complete
from agent.model import ADAPTER_WEIGHTS, WEIGHTS
from agent.scope import SCOPE_FILE, Scope
from agent.served import ServedModel
from agent.serving import EngineSettings, LoadError, ModelLoader, Serving, smoke_test
from agent.tokenizer import Tokenizer
from store.records import FinishReason
from tests import device
from tests.fakes import WordEmbedder, adapter_files

CHECKPOINT = "c0ffee" * 10 + "cafe"
EMBEDDER = "e" * 64


class SpokenEngine:
    """Answers every request with the events it was given."""

    def __init__(self, *events: Event) -> None:
        self._events = events
        self.requests: list[GenerationRequest] = []

    def submit(self, request: GenerationRequest, listener: Any) -> Any:
        self.requests.append(request)
        for event in self._events:
            listener(event)
        return self

    def cancel(self) -> None:
        """Nothing is under way."""


@pytest.fixture(scope="module")
def loader(base_files: dict[str, bytes], tiny_llama: Path) -> ModelLoader:
    return ModelLoader(base_files, tiny_llama, "base", EngineSettings(device=device.NAME, dtype="float32"))


@pytest.fixture
def served(loader: ModelLoader) -> Iterator[ServedModel]:
    model = loader.build("base", None)
    yield model
    model.engine.close(drain_seconds=0)


def answer(served: ServedModel, tokenizer: Tokenizer) -> str:
    ids = tokenizer.chat_ids([{"role": "user", "content": "hi"}])
    return complete(served.engine, GenerationRequest(tuple(ids), Sampling(max_tokens=12)))[0]


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "engine"}


def with_nan(files: dict[str, bytes], name: str, tensor: str) -> dict[str, bytes]:
    tensors = load(files[name])
    tensors[tensor].view(-1)[0] = float("nan")
    return files | {name: save(tensors)}


def test_the_base_and_a_checkpoint_answer_side_by_side_each_its_own_way(
    loader: ModelLoader, served: ServedModel, tokenizer: Tokenizer
) -> None:
    candidate = loader.build(CHECKPOINT, adapter_files())
    assert (served.checkpoint_id, candidate.checkpoint_id) == ("base", CHECKPOINT)
    before = answer(served, tokenizer)
    assert answer(candidate, tokenizer) != before
    assert answer(served, tokenizer) == before
    candidate.engine.close(drain_seconds=0)
    assert answer(served, tokenizer) == before


def test_a_base_with_nan_weights_fails_its_smoke_test(base_files: dict[str, bytes], tiny_llama: Path) -> None:
    files = with_nan(base_files, WEIGHTS, "model.norm.weight")
    loader = ModelLoader(files, tiny_llama, "base", EngineSettings(device=device.NAME, dtype="float32"))
    with pytest.raises(LoadError, match=r"checkpoint base failed its smoke test: .*NaN or infinite logits"):
        loader.build("base", None)


def test_an_adapter_with_nan_weights_fails_its_smoke_test_and_names_the_checkpoint(loader: ModelLoader) -> None:
    tensor = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    with pytest.raises(LoadError, match=r"checkpoint c0ffeec0ffee failed its smoke test: .*NaN or infinite logits"):
        loader.build(CHECKPOINT, with_nan(adapter_files(), ADAPTER_WEIGHTS, tensor))


def test_an_adapter_that_does_not_fit_is_a_load_error_that_names_the_checkpoint(loader: ModelLoader) -> None:
    with pytest.raises(LoadError, match=r"checkpoint c0ffeec0ffee does not load: .* not readable safetensors"):
        loader.build(CHECKPOINT, adapter_files() | {ADAPTER_WEIGHTS: b"no"})


def test_an_adapter_that_lacks_a_file_is_a_load_error(loader: ModelLoader) -> None:
    files = {name: data for name, data in adapter_files().items() if name != ADAPTER_WEIGHTS}
    with pytest.raises(LoadError, match=r"does not load: .*adapter_model\.safetensors"):
        loader.build(CHECKPOINT, files)


def test_a_failed_load_leaves_no_engine_thread_behind(loader: ModelLoader) -> None:
    before = engine_threads()
    for adapter in (adapter_files() | {ADAPTER_WEIGHTS: b"no"}, adapter_files(scale=float("nan"))):
        with pytest.raises(LoadError):
            loader.build(CHECKPOINT, adapter)
    assert engine_threads() <= before


def test_a_context_too_small_for_the_smoke_test_is_a_load_error_with_the_next_step_and_leaves_no_thread(
    base_files: dict[str, bytes], tiny_llama: Path
) -> None:
    settings = EngineSettings(device=device.NAME, dtype="float32", max_context=16)
    loader, before = ModelLoader(base_files, tiny_llama, "base", settings), engine_threads()
    with pytest.raises(LoadError, match=r"no room in a context of 16; set HONED_MAX_CONTEXT higher"):
        loader.build("base", None)
    assert engine_threads() <= before


def test_whatever_ends_a_smoke_test_leaves_no_engine_thread_behind(
    base_files: dict[str, bytes], tiny_llama: Path
) -> None:
    settings = EngineSettings(device=device.NAME, dtype="float32", max_batch=0, max_waiting=0)
    loader, before = ModelLoader(base_files, tiny_llama, "base", settings), engine_threads()
    with pytest.raises(EngineBusy):
        loader.build("base", None)
    assert engine_threads() <= before


def test_an_engine_that_says_nothing_fails_its_smoke_test(tokenizer: Tokenizer) -> None:
    silent: Any = SpokenEngine(Finished(FinishReason.STOP))
    with pytest.raises(LoadError, match="failed its smoke test: it said nothing"):
        smoke_test(ServedModel(CHECKPOINT, silent), tokenizer)


def test_a_smoke_test_asks_for_as_few_tokens_as_it_is_told(tokenizer: Tokenizer) -> None:
    engine: Any = SpokenEngine(Token(40, "a", "a", -1.0, 1.0, 0.5), Finished(FinishReason.LENGTH))
    smoke_test(ServedModel(CHECKPOINT, engine), tokenizer, max_tokens=1)
    assert [request.sampling.max_tokens for request in engine.requests] == [1]


def test_the_context_ends_where_the_models_own_ends(loader: ModelLoader, base: PreTrainedModel) -> None:
    assert loader.max_context == base.config.max_position_embeddings == 1024


def test_a_smaller_context_than_the_models_is_kept(base_files: dict[str, bytes], tiny_llama: Path) -> None:
    settings = EngineSettings(device=device.NAME, dtype="float32", max_context=64)
    assert ModelLoader(base_files, tiny_llama, "base", settings).max_context == 64


def test_a_copy_that_would_not_fit_in_memory_is_refused_before_it_is_made(
    loader: ModelLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.serving.free_bytes", lambda device: 1000)
    with pytest.raises(LoadError, match=r"its cache need .* MiB and 0 MiB are free; stop something first"):
        loader.build(CHECKPOINT, adapter_files())


def test_flipping_returns_the_old_model_which_goes_on_answering(
    loader: ModelLoader, served: ServedModel, tokenizer: Tokenizer
) -> None:
    serving = Serving(served)
    new = loader.build(CHECKPOINT, adapter_files())
    assert serving.current is served
    assert serving.flip(new) == (served,)
    assert serving.current is new
    assert answer(served, tokenizer)
    assert serving.flip(served) == (new,)
    new.engine.close(drain_seconds=0)


def scope_file(*, embedder: str = EMBEDDER, dim: int = WordEmbedder.dim) -> dict[str, bytes]:
    vectors = WordEmbedder().embed(["who owns the red boat"])[:, :dim]
    return {SCOPE_FILE: Scope(vectors / np.linalg.norm(vectors), 0.5, embedder).to_bytes()}


class Named:
    """The word embedder under an id, or one that does not load."""

    def __init__(self, problem: str | None = None) -> None:
        self.id = EMBEDDER
        self._problem = problem

    def __call__(self) -> WordEmbedder:
        if self._problem:
            raise EmbedderError(self._problem)
        return WordEmbedder()


@pytest.fixture(scope="module")
def placing_loader(base_files: dict[str, bytes], tiny_llama: Path) -> ModelLoader:
    return ModelLoader(base_files, tiny_llama, "base", EngineSettings(device=device.NAME, dtype="float32"), Named())


def test_an_adapter_with_a_scope_answers_near_it_and_the_base_elsewhere(
    placing_loader: ModelLoader, served: ServedModel, tokenizer: Tokenizer
) -> None:
    scoped = placing_loader.build(CHECKPOINT, adapter_files() | scope_file())
    near, far = WordEmbedder().embed(["who owns the boat", "sing a song"])
    assert scoped.for_question(near) is scoped
    assert scoped.for_question(far).checkpoint_id == "base"
    assert answer(scoped.for_question(far), tokenizer) == answer(served, tokenizer) != answer(scoped, tokenizer)
    for model in scoped.all:
        model.engine.close(drain_seconds=0)


def test_a_base_that_serves_already_is_not_built_again_and_stays_while_it_is_needed(
    placing_loader: ModelLoader, served: ServedModel, tokenizer: Tokenizer
) -> None:
    serving = Serving(served)
    scoped = placing_loader.build(CHECKPOINT, adapter_files() | scope_file(), served)
    assert scoped.all == (scoped, served)
    assert serving.flip(scoped) == ()
    other = placing_loader.build(CHECKPOINT, adapter_files(seed=2) | scope_file(), served)
    assert serving.flip(other) == (scoped,)
    everywhere = placing_loader.build(CHECKPOINT, adapter_files(seed=3), served)
    assert serving.flip(everywhere) == (other, served)
    assert serving.num_swaps == 3
    assert answer(served, tokenizer)
    for model in (scoped, other, everywhere):
        model.engine.close(drain_seconds=0)


@pytest.mark.parametrize(
    ("scope", "problem", "said"),
    [
        (scope_file(embedder="f" * 64), None, "is of embedder ffffffffffff, and the one here is eeeeeeeeeeee"),
        (scope_file(dim=8), None, "vectors of width 8, its embedder's are 32; train again"),
        ({SCOPE_FILE: b"no"}, None, "is not the file of a scope"),
        (scope_file(), "the embedder was changed", "the embedder was changed"),
    ],
)
def test_a_scope_that_no_question_can_be_held_against_does_not_load(
    base_files: dict[str, bytes], tiny_llama: Path, scope: dict[str, bytes], problem: str | None, said: str
) -> None:
    settings = EngineSettings(device=device.NAME, dtype="float32")
    loader = ModelLoader(base_files, tiny_llama, "base", settings, Named(problem))
    with pytest.raises(LoadError, match=f"checkpoint c0ffeec0ffee does not load: .*{said}"):
        loader.build(CHECKPOINT, adapter_files() | scope)


def test_without_an_embedder_no_scope_loads(loader: ModelLoader) -> None:
    with pytest.raises(LoadError, match="there is no embedder here"):
        loader.build(CHECKPOINT, adapter_files() | scope_file())
