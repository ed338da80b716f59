"""Fixtures every package's tests share. The tiny models are written once a session."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.config import Settings
from tests import device


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the 2-layer random Llama."""
    from tests.fakes import write_tiny_llama

    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the tiny sentence embedder."""
    from tests.fakes import write_tiny_embedder

    return write_tiny_embedder(tmp_path_factory.mktemp("models") / "tiny-embedder")


@pytest.fixture(scope="session")
def make_settings(tiny_llama: Path, tiny_embedder: Path) -> Callable[..., Settings]:
    """Settings on the tiny models that nothing of this machine's own environment reaches."""

    def make(state: Path, **changes: Any) -> Settings:
        values = {
            "model": str(tiny_llama),
            "embedder": str(tiny_embedder),
            "port": 0,
            "device": device.NAME,
            "dtype": "float32",
            "threads": 1,
            "train_threads": 1,
            "drain_seconds": 10.0,
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HONED_STATE", str(state))
            return Settings(state=state, **(values | changes))

    return make
