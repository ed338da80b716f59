"""Sealed directories: whole, or refused with the name of the file that shows why."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from store.artifacts import MANIFEST, ArtifactError, publish, read, seal, sha256_file, verify, write_file
from store.audit import canonical_json

FILES = {
    "adapter.safetensors": b"weights" * 1000,
    "adapter_config.json": b"{}",
    "deep/er/notes.txt": b"",
    "ü.txt": b"u",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "adapter"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def id_(directory: Path) -> str:
    return seal(directory, {"base": "b1", "rank": 8})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_sealing_names_every_file_and_gives_the_digest_of_the_manifest(directory: Path, id_: str) -> None:
    data = (directory / MANIFEST).read_bytes()
    manifest = json.loads(data)
    assert id_ == sha256(data)
    assert data == canonical_json(manifest)
    assert manifest == {
        "format": 1,
        "base": "b1",
        "rank": 8,
        "files": {name: {"sha256": sha256(content), "size": len(content)} for name, content in FILES.items()},
    }


def test_sealing_again_gives_the_same_id_and_other_meta_another(directory: Path, id_: str) -> None:
    assert seal(directory, {"rank": 8, "base": "b1"}) == id_
    assert seal(directory, {"rank": 16, "base": "b1"}) != id_


def test_reading_gives_the_manifest_and_the_bytes_that_were_checked(directory: Path, id_: str) -> None:
    sealed = read(directory, id_)
    assert sealed.id == id_
    assert sealed.files == FILES
    assert sealed.manifest["base"] == "b1"
    assert verify(directory, id_) == sealed.manifest


def change(root: Path) -> None:
    data = bytearray((root / "adapter.safetensors").read_bytes())
    data[3] ^= 1
    (root / "adapter.safetensors").write_bytes(data)


def grow(root: Path) -> None:
    with (root / "adapter_config.json").open("ab") as file:
        file.write(b" ")


def cut(root: Path) -> None:
    os.truncate(root / "adapter.safetensors", 10)


def link_away(root: Path) -> None:
    shutil.copy(root / "adapter_config.json", root.parent / "same")
    (root / "adapter_config.json").unlink()
    (root / "adapter_config.json").symlink_to(root.parent / "same")


def link_folder_away(root: Path) -> None:
    shutil.move(root / "deep", root.parent / "deep")
    (root / "deep").symlink_to(root.parent / "deep")


def pipe(root: Path) -> None:
    (root / "adapter_config.json").unlink()
    os.mkfifo(root / "adapter_config.json")


def folder_instead(root: Path) -> None:
    (root / "adapter_config.json").unlink()
    (root / "adapter_config.json").mkdir()


def edit_manifest(root: Path) -> None:
    (root / MANIFEST).write_bytes((root / MANIFEST).read_bytes().replace(b'"rank":8', b'"rank":9'))


def link_manifest(root: Path) -> None:
    (root / MANIFEST).rename(root.parent / "elsewhere.json")
    (root / MANIFEST).symlink_to(root.parent / "elsewhere.json")


TAMPERING: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte changed": (change, "adapter.safetensors"),
    "a byte added": (grow, "adapter_config.json"),
    "cut short": (cut, "adapter.safetensors"),
    "removed": (lambda root: (root / "deep/er/notes.txt").unlink(), "deep/er/notes.txt"),
    "swapped names": (lambda root: shutil.copy(root / "adapter_config.json", root / "ü.txt"), "ü.txt"),
    "one more file": (lambda root: (root / "evil.py").write_text(""), "evil.py"),
    "one more hidden file": (lambda root: (root / ".git").write_text(""), ".git"),
    "one more file below": (lambda root: (root / "deep/x").write_text(""), "deep/x"),
    "a manifest below": (lambda root: (root / "deep" / MANIFEST).write_text("{}"), f"deep/{MANIFEST}"),
    "a link in place of a file": (link_away, "adapter_config.json"),
    "a link in place of a folder": (link_folder_away, "deep"),
    "one more link": (lambda root: (root / "more").symlink_to("ü.txt"), "more"),
    "a pipe in place of a file": (pipe, "adapter_config.json"),
    "a folder in place of a file": (folder_instead, "adapter_config.json"),
    "manifest edited": (edit_manifest, MANIFEST),
    "manifest removed": (lambda root: (root / MANIFEST).unlink(), MANIFEST),
    "manifest a link": (link_manifest, MANIFEST),
}


@pytest.mark.parametrize("check", [read, verify])
@pytest.mark.parametrize(("tamper", "file"), TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_refused_and_the_file_named(
    directory: Path, id_: str, check: Callable[[Path, str], object], tamper: Callable[[Path], object], file: str
) -> None:
    check(directory, id_)
    tamper(directory)
    with pytest.raises(ArtifactError) as caught:
        check(directory, id_)
    assert caught.value.file == file


@pytest.mark.parametrize("check", [read, verify])
def test_another_id_is_refused_even_when_the_directory_is_whole(directory: Path, id_: str, check) -> None:
    with pytest.raises(ArtifactError, match=id_) as caught:
        check(directory, "0" * 64)
    assert caught.value.file == MANIFEST


@pytest.mark.parametrize("check", [read, verify])
def test_a_directory_that_is_missing_or_a_link_is_refused(directory: Path, id_: str, check) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory)
    for path in (link, directory.parent / "nowhere"):
        with pytest.raises(ArtifactError, match=path.name):
            check(path, id_)


UNSAFE = ["../escape", "/etc/hostname", "a/../b", "./a", "a//b", "", "a\\b", "a\x00b", "a\nb", "..", "\ud800"]


def forge(directory: Path, manifest: object) -> str:
    data = json.dumps(manifest).encode()
    (directory / MANIFEST).write_bytes(data)
    return sha256(data)


@pytest.mark.parametrize("name", UNSAFE)
def test_a_manifest_that_reaches_outside_is_refused_though_its_digest_fits(directory: Path, name: str) -> None:
    entry = {"sha256": sha256(b""), "size": 0}
    forged = forge(directory, {"format": 1, "files": {name: entry}})
    with pytest.raises(ArtifactError, match="unsafe path") as caught:
        read(directory, forged)
    assert caught.value.file == name


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"format": 2, "files": {}},
        {"format": 1},
        {"format": 1, "files": []},
        {"format": 1, "files": {"x": None}},
        {"format": 1, "files": {"x": {"sha256": 5, "size": 1}}},
        {"format": 1, "files": {"x": {"sha256": "", "size": "1"}}},
        {"format": 1, "files": {MANIFEST: {"sha256": "", "size": 1}}},
    ],
)
def test_a_manifest_of_another_shape_is_refused(directory: Path, manifest: object) -> None:
    with pytest.raises(ArtifactError):
        verify(directory, forge(directory, manifest))


def test_a_manifest_that_is_not_json_is_refused(directory: Path) -> None:
    (directory / MANIFEST).write_bytes(b"{")
    with pytest.raises(ArtifactError, match="not JSON"):
        read(directory, sha256(b"{"))


def test_sealing_refuses_links_pipes_sockets_and_unsafe_names(directory: Path) -> None:
    def listen(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(path.parent)  # socket paths are short
            server.bind(path.name)
            os.chdir(here)

    makers: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to("ü.txt"),
        "pipe": os.mkfifo,
        "socket": listen,
        "new\nline": lambda path: path.write_text(""),
        "back\\slash": lambda path: path.write_text(""),
    }
    for name, make in makers.items():
        make(directory / name)
        with pytest.raises(ArtifactError) as caught:
            seal(directory, {})
        assert caught.value.file == name
        (directory / name).unlink()
        assert not (directory / MANIFEST).exists()


def test_meta_may_not_speak_for_the_manifest(directory: Path) -> None:
    with pytest.raises(ValueError, match="files"):
        seal(directory, {"files": {}})


def test_publishing_moves_the_directory_whole(directory: Path, id_: str, tmp_path: Path) -> None:
    destination = tmp_path / "checkpoints" / id_
    destination.parent.mkdir()
    publish(directory, destination)
    assert not directory.exists()
    assert read(destination, id_).files == FILES


def test_publishing_the_same_again_only_clears_the_source(directory: Path, id_: str, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "again")
    publish(directory, tmp_path / "place")
    publish(tmp_path / "again", tmp_path / "place")
    assert not (tmp_path / "again").exists()
    assert read(tmp_path / "place", id_).files == FILES


def test_publishing_never_replaces_another(directory: Path, tmp_path: Path, id_: str) -> None:
    other = tmp_path / "place"
    shutil.copytree(directory, other)
    other_id = seal(other, {"rank": 9})
    with pytest.raises(ArtifactError, match="another manifest"):
        publish(directory, other)
    assert verify(other, other_id)
    assert verify(directory, id_)


def test_publishing_onto_a_damaged_copy_keeps_the_whole_source(directory: Path, tmp_path: Path, id_: str) -> None:
    shutil.copytree(directory, tmp_path / "place")
    cut(tmp_path / "place")
    with pytest.raises(ArtifactError) as caught:
        publish(directory, tmp_path / "place")
    assert caught.value.file == "adapter.safetensors"
    assert verify(directory, id_)


def test_publishing_needs_a_seal_and_a_place_that_is_free(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        publish(directory, tmp_path / "place")
    seal(directory, {})
    (tmp_path / "place").mkdir()
    with pytest.raises(ArtifactError):
        publish(directory, tmp_path / "place")
    assert directory.exists()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "x", b"one")
    write_file(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"two"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "folder", b"three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x"]


def test_sha256_file_matches_hashlib(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "x") == sha256(b"abc" * 100_000)


@pytest.mark.parametrize("check", [read, verify])
def test_a_manifest_that_lies_about_a_size_is_refused_though_the_contents_fit(directory: Path, check) -> None:
    files = {name: {"sha256": sha256(data), "size": len(data)} for name, data in FILES.items()}
    files["ü.txt"]["size"] = 2
    with pytest.raises(ArtifactError, match="has 1 bytes") as caught:
        check(directory, forge(directory, {"format": 1, "files": files}))
    assert caught.value.file == "ü.txt"
