"""Sealed directories: every file's digest in a manifest that is written last, and whose digest is the directory's id.

What is in the files, and whether they may be used, is decided elsewhere.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from store.audit import canonical_json
from store.connection import sync_directory
from store.tree import ArtifactError, check_name, list_files, open_file, open_root

__all__ = ["MANIFEST", "ArtifactError", "Sealed", "publish", "read", "seal", "sha256_file", "verify", "write_file"]

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
CHUNK = 1024 * 1024

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A directory's contents, exactly the bytes that were checked."""

    id: str
    manifest: Entry
    files: dict[str, bytes]


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Appears whole or not at all, also over a power cut."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def seal(directory: Path, meta: Mapping[str, Any]) -> str:
    """Gives a finished directory its manifest and returns its id."""
    if taken := {"format", "files"} & set(meta):
        raise ValueError(f"meta must leave {', '.join(sorted(taken))} to the manifest")
    files: dict[str, Entry] = {}
    with open_root(directory) as root:
        for name in sorted(set(list_files(root)) - {MANIFEST}):
            with open_file(root, name) as file:
                os.fsync(file.fileno())
                files[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": file.tell()}
    for folder in {directory / PurePosixPath(name).parent for name in files}:
        sync_directory(folder)
    manifest = canonical_json({"format": 1, "files": files, **meta})
    write_file(directory / MANIFEST, manifest)
    return hashlib.sha256(manifest).hexdigest()


def publish(directory: Path, destination: Path) -> None:
    """Moves a sealed directory to its place. Coming again with the same one is no error; another is never replaced."""
    id_ = _id_of(directory)
    if os.path.lexists(destination):
        if _id_of(destination) != id_:
            raise ArtifactError(f"{destination} holds another manifest; nothing was replaced", file=MANIFEST)
        verify(destination, id_)  # a damaged copy must not cost us the whole one
        shutil.rmtree(directory)
        return
    sync_directory(directory)
    directory.rename(destination)
    sync_directory(destination.parent)
    sync_directory(directory.parent)


def read(directory: Path, expected_id: str) -> Sealed:
    """Everything in the directory, each file read once: the bytes returned are the bytes checked."""
    files: dict[str, bytes] = {}

    def keep(name: str, file: BufferedReader, size: int) -> str:
        files[name] = file.read(size + 1)
        return hashlib.sha256(files[name]).hexdigest()

    return Sealed(expected_id, _check(directory, expected_id, keep), files)


def verify(directory: Path, expected_id: str) -> Entry:
    """The checks of `read` without holding the files in memory; returns the manifest."""

    def pass_over(_name: str, file: BufferedReader, _size: int) -> str:
        return hashlib.file_digest(file, "sha256").hexdigest()

    return _check(directory, expected_id, pass_over)


def _check(directory: Path, expected_id: str, take: Callable[[str, BufferedReader, int], str]) -> Entry:
    with open_root(directory) as root:
        manifest = _manifest(root, expected_id)
        files: dict[str, Entry] = manifest["files"]
        present = set(list_files(root)) - {MANIFEST}
        if extra := sorted(present - set(files)):
            raise ArtifactError(f"{directory} holds {extra[0]}, which its manifest does not name", file=extra[0])
        for name, entry in files.items():
            _check_file(root, name, entry, take)
    return manifest


def _check_file(root: int, name: str, entry: Entry, take: Callable[[str, BufferedReader, int], str]) -> None:
    with open_file(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["size"]:
            raise ArtifactError(f"{name} has {size} bytes, its manifest says {entry['size']}", file=name)
        found = take(name, file, size)
    if found != entry["sha256"]:
        raise ArtifactError(f"{name} was changed: sha256 {found}, its manifest says {entry['sha256']}", file=name)


def _manifest(root: int, expected_id: str) -> Entry:
    data = _manifest_bytes(root)
    found = hashlib.sha256(data).hexdigest()
    if found != expected_id:
        raise ArtifactError(f"the manifest's digest is {found}, not {expected_id}", file=MANIFEST)
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"the manifest is not JSON: {error}", file=MANIFEST) from error
    if not isinstance(manifest, dict) or manifest.get("format") != 1 or not isinstance(manifest.get("files"), dict):
        raise ArtifactError("the manifest is not of format 1", file=MANIFEST)
    for name, entry in manifest["files"].items():
        check_name(name)
        _check_entry(name, entry)
    return manifest


def _check_entry(name: str, entry: object) -> None:
    match entry:
        case {"sha256": str(), "size": int(), **rest} if name != MANIFEST and not rest:
            return
    raise ArtifactError(f"the manifest's entry for {name} is not a sha256 and a size", file=name)


def _manifest_bytes(root: int) -> bytes:
    with open_file(root, MANIFEST) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes", file=MANIFEST)
    return data


def _id_of(directory: Path) -> str:
    with open_root(directory) as root:
        return hashlib.sha256(_manifest_bytes(root)).hexdigest()
