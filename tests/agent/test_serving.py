"""Who answers: built beside, smoke-tested, flipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save
from transformers import PreTrainedModel

from agent.engine import Event, Finished, GenerationRequest, Sampling, Token, complete
from agent.model import ADAPTER_WEIGHTS, WEIGHTS
from agent.served import ServedModel
from agent.serving import EngineSettings, LoadError, ModelLoader, Serving, smoke_test
from agent.tokenizer import Tokenizer
from store.records import FinishReason
from tests.fakes import adapter_files

CHECKPOINT = "c0ffee" * 10 + "cafe"


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
    return ModelLoader(base_files, tiny_llama, "base", EngineSettings(device="cpu", dtype="float32"))


@pytest.fixture
def served(loader: ModelLoader) -> Iterator[ServedModel]:
    model = loader.build("base", None)
    yield model
    model.engine.close(drain_seconds=0)


def answer(served: ServedModel, tokenizer: Tokenizer) -> str:
    ids = tokenizer.chat_ids([{"role": "user", "content": "hi"}])
    return complete(served.engine, GenerationRequest(tuple(ids), Sampling(max_tokens=12)))[0]


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
    loader = ModelLoader(files, tiny_llama, "base", EngineSettings(device="cpu", dtype="float32"))
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
    import threading

    before = threading.active_count()
    for adapter in (adapter_files() | {ADAPTER_WEIGHTS: b"no"}, adapter_files(scale=float("nan"))):
        with pytest.raises(LoadError):
            loader.build(CHECKPOINT, adapter)
    assert threading.active_count() == before


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
    settings = EngineSettings(device="cpu", dtype="float32", max_context=64)
    assert ModelLoader(base_files, tiny_llama, "base", settings).max_context == 64


def test_a_copy_that_would_not_fit_in_memory_is_refused_before_it_is_made(
    loader: ModelLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
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
