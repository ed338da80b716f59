"""What the machine under a benchmark can do: its name, its cores, and how fast it reads memory today."""

import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from agent.model import choose_device


@dataclass(frozen=True, slots=True)
class Machine:
    """Named beside every figure."""

    name: str
    cores: int
    read_gb_per_second: float
    date: str

    def __str__(self) -> str:
        read = f"{self.read_gb_per_second:.0f} GB/s read"
        return f"{self.name}, {self.cores} cores, {read}, {self.date}"


def look(threads: int) -> Machine:
    """Measure the read bandwidth with `threads` threads: the best of several sums over 256 MiB."""
    torch.set_num_threads(threads)
    data = torch.ones(64 << 20, dtype=torch.float32)
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        data.sum()
        best = max(best, data.nbytes / (time.perf_counter() - began) / 1e9)
    return Machine(_name(), threads, best, datetime.now(UTC).date().isoformat())


def _name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line for line in lines if line.startswith("flags")), "")
    name = f"{model} ({'with' if 'avx512_bf16' in flags else 'without'} avx512_bf16)"
    is_cuda = choose_device().type == "cuda"
    return f"{torch.cuda.get_device_name()} on {name}" if is_cuda else name
