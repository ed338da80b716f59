"""The models a daemon needs, sealed under STATE/models: fetched once, verified at every start, usable offline after."""

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent import source
from store import artifacts

PINS = "pins.json"
FETCHING = "fetch.lock"


@dataclass(frozen=True, slots=True)
class SealedModel:
    """A model directory whose manifest digest is `id`."""

    id: str
    name: str
    path: Path


def ensure(text: str, models: Path, *, quiet: bool = False) -> SealedModel:
    """The model of a source, fetching it if it is not here.
    SourceError says what went wrong; nothing half-made stays.
    """
    parsed = source.parse(text)
    if not is_present(text, models):
        models.mkdir(parents=True, exist_ok=True)
        with _alone(models):
            if not is_present(text, models):  # another process may have brought it meanwhile
                _fetch(text, parsed, models, quiet=quiet)
    path = models / _pins(models)[text]
    return SealedModel(path.name, source.display_name(parsed), path)


def _fetch(text: str, parsed: source.Source, models: Path, *, quiet: bool) -> None:
    _discard_leftovers(models)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=models) as scratch:
        fetched = Path(scratch) / "fetched"
        fetched.mkdir()
        source.fetch(parsed, fetched, quiet=quiet)
        ready = _converted(fetched, Path(scratch) / "converted", quiet=quiet)
        digest = artifacts.seal(ready, {"kind": "model", "source": text})
        artifacts.publish(ready, models / digest)
    pins = {**_pins(models), text: digest}
    artifacts.write_file(models / PINS, json.dumps(pins, indent=1, sort_keys=True).encode())


def is_present(text: str, models: Path) -> bool:
    """Whether `ensure` would need no network and no conversion."""
    pins = _pins(models)
    return text in pins and (models / pins[text]).is_dir()


def _converted(fetched: Path, directory: Path, *, quiet: bool) -> Path:
    """The fetched directory itself, or its GGUF turned into safetensors."""
    packed = sorted(fetched.glob("*.gguf"))
    if not packed:
        return fetched
    if len(packed) > 1:
        raise source.SourceError(f"{len(packed)} GGUF files where one is expected: {[path.name for path in packed]}")
    from agent.convert import gguf_to_safetensors

    if not quiet:
        print(f"Converting {packed[0].name} to safetensors, once …", file=sys.stderr)  # noqa: T201 - progress to a person
    directory.mkdir()
    try:
        gguf_to_safetensors(packed[0], directory)
    except (ValueError, OSError) as error:
        raise source.SourceError(f"{packed[0].name} could not be converted: {error}") from error
    return directory


def _pins(models: Path) -> Mapping[str, str]:
    """Which digest each source came to; a damaged list is none, and the sources are fetched again."""
    try:
        pins = json.loads((models / PINS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(text): str(digest) for text, digest in pins.items()} if isinstance(pins, dict) else {}


@contextmanager
def _alone(models: Path) -> Iterator[None]:
    """One process fetches at a time; others wait for it. What is left of a fetch is then surely of one that died."""
    descriptor = os.open(models / FETCHING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is fetching into {models}; waiting for it …", file=sys.stderr)  # noqa: T201
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _discard_leftovers(models: Path) -> None:
    for path in models.glob(".fetch-*"):
        shutil.rmtree(path, ignore_errors=True)
