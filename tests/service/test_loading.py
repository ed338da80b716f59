"""Sealed models in memory are the bytes that were verified, whatever happens to the directory afterwards."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from agent.embedding import EmbedderError, SentenceEmbedder
from agent.tokenizer import Tokenizer
from service import loading, models
from service.loading import LoadedEmbedder, computed_on, model_loader
from store import artifacts

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "models"


def spoil(directory: Path, name: str) -> None:
    """In place, byte for byte, as somebody with the disk in hand could."""
    with (directory / name).open("r+b") as file:
        file.write(b"\0" * (directory / name).stat().st_size)


def test_the_tokenizer_and_the_chat_template_are_the_verified_ones(
    place, tiny_llama, make_settings, tmp_path, monkeypatch
):
    base = models.ensure(str(tiny_llama), place)
    names = [name for name in artifacts.verify(base.path, base.id)["files"] if not name.endswith(".safetensors")]
    assert {"tokenizer.json", "chat_template.jinja"} <= set(names)
    read = artifacts.read

    def read_and_spoil(directory: Path, expected_id: str) -> artifacts.Sealed:
        sealed = read(directory, expected_id)
        for name in names:
            spoil(directory, name)
        return sealed

    monkeypatch.setattr(loading.artifacts, "read", read_and_spoil)
    loader = model_loader(make_settings(tmp_path / "state"), base)
    assert loader.tokenizer.chat_ids(HI) == Tokenizer(tiny_llama).chat_ids(HI)


def test_what_answers_are_computed_on_is_a_file_name_that_tells_device_precision_and_runner(
    place, tiny_llama, make_settings, tmp_path
):
    base = models.ensure(str(tiny_llama), place)
    told = {
        computed_on(model_loader(make_settings(tmp_path / "state", device="cpu", **changes), base))
        for changes in ({"dtype": "float32"}, {"dtype": "bfloat16"}, {"quantization": "int8", "dtype": "bfloat16"})
    }
    assert told == {"cpu-float32-reference", "cpu-bfloat16-fast", "cpu-int8-fast"}


def test_a_model_that_does_not_load_is_named_by_its_own_place(place, tiny_llama, make_settings, tmp_path):
    (bare := tmp_path / "bare").mkdir()
    for path in tiny_llama.iterdir():
        if path.name != "chat_template.jinja":
            shutil.copy(path, bare)
    base = models.ensure(str(bare), place)
    with pytest.raises(ValueError, match=f"^{base.path} has no chat template"):
        model_loader(make_settings(tmp_path / "state"), base)


def test_an_embedder_stays_what_it_was_when_its_files_change(place, tiny_embedder):
    sealed = models.ensure(str(tiny_embedder), place)
    embedder = LoadedEmbedder(sealed)()
    spoil(sealed.path, "model.safetensors")
    expected = SentenceEmbedder(tiny_embedder).embed(["a red boat"])
    assert np.array_equal(embedder.embed(["a red boat"]), expected)
    assert embedder.count(["hi"]) == SentenceEmbedder(tiny_embedder).count(["hi"])


def test_an_embedder_whose_files_are_not_the_sealed_ones_does_not_load(place, tiny_embedder):
    sealed = models.ensure(str(tiny_embedder), place)
    spoil(sealed.path, "model.safetensors")
    with pytest.raises(EmbedderError, match=r"does not load: model\.safetensors was changed"):
        LoadedEmbedder(sealed)()
