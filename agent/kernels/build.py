"""Compiles the kernels for this very machine, once; the result is kept under the digest of all that made it."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.kernels import abi
from agent.rundir import synced

SOURCES = Path(__file__).parent
MAIN = "decoder.cpp"
COMPILERS = ("c++", "g++", "clang++")
# Sums keep their order (no -ffast-math): the same row gives the same bits in every batch.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
TIMEOUT_SECONDS = 300
READING: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}


class NoKernels(RuntimeError):
    """The kernels cannot be had here; the message says why and what would help."""


def load(cache: Path, environment: Mapping[str, str] = os.environ) -> ctypes.CDLL:
    """The kernels, ready to be called. A kept file that does not load is made again, once: a power cut may have halved
    it. Raises NoKernels, and OSError when the new one does not load either.
    """
    kept = library(cache, environment)
    try:
        return abi.load(kept)
    except OSError:
        kept.unlink(missing_ok=True)
    return abi.load(library(cache, environment))


def library(cache: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The compiled kernels, from `cache` if they are there. Takes a few seconds the first time. Raises NoKernels."""
    compiler = _compiler(environment)
    path = cache / f"kernels-{_digest(compiler)}.so"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = cache.stat()
    if told.st_uid != os.getuid() or told.st_mode & 0o022:  # who can write there could have us run anything
        raise NoKernels(f"{cache} can be written by others; run `chmod 700 {cache}` as its owner")
    if not path.exists():
        _compile(compiler, path)
    return path


def _compiler(environment: Mapping[str, str]) -> str:
    named = environment.get("CXX")
    for name in (named,) if named else COMPILERS:
        found = shutil.which(name, path=environment.get("PATH"))
        if found:
            return found
    looked = named or ", ".join(COMPILERS)
    raise NoKernels(f"there is no C++ compiler here ({looked}); install g++ 12 or clang 15 for full speed")


def _digest(compiler: str) -> str:
    """Of the sources, the flags, the compiler and the processor: a state directory may move to another machine."""
    digest = hashlib.sha256("\0".join((*FLAGS, compiler, _version(compiler), _processor())).encode())
    for path in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def _version(compiler: str) -> str:
    try:
        told = subprocess.run([compiler, "--version"], timeout=30, check=False, **READING)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernels(f"{compiler} does not run: {error}; set CXX to a C++ compiler that does") from error
    if told.returncode != 0:
        raise NoKernels(f"{compiler} does not run: {_said(told)}; set CXX to a C++ compiler that does")
    return str(told.stdout)


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """The first line of its complaint."""
    return (done.stderr.strip().splitlines() or ["it said nothing"])[0]


def _processor() -> str:
    """What the processor can do, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="kernels-") as scratch:
        made = Path(scratch) / path.name
        command = [compiler, *FLAGS, str(SOURCES / MAIN), "-o", str(made)]
        try:
            done = subprocess.run(command, timeout=TIMEOUT_SECONDS, check=False, **READING)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoKernels(f"{compiler} did not finish: {error}") from error
        if done.returncode != 0:
            raise NoKernels(f"{compiler} does not compile the kernels: {_said(done)}; g++ 12 and clang 15 do")
        synced(made)
        made.replace(path)
    synced(path.parent)
