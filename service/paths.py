"""Where things lie under the state directory. Light: the command line imports it before anything else."""

import os
from dataclasses import dataclass
from pathlib import Path


def state_directory() -> Path:
    """HONED_STATE, else the platform's place for application state."""
    named = os.environ.get("HONED_STATE")
    if named:
        return whole(Path(named))
    from platformdirs import user_state_path

    return user_state_path("honed")


def whole(path: Path) -> Path:
    """What was named by somebody in some directory, as it is for a process in any. ValueError for nobody's home."""
    try:
        return path.expanduser().resolve()
    except RuntimeError:
        raise ValueError(f"{path} begins with the home of a user who is not known here; write it out") from None


def kernel_directory() -> Path:
    """Where compiled kernels are kept: the user's cache, for all states; they can be made again at any time."""
    from platformdirs import user_cache_path

    return user_cache_path("honed") / "kernels"


def key_directory() -> Path:
    """Where operators' private keys lie: HONED_KEYS, else the user's configuration. The daemon never reads it."""
    named = os.environ.get("HONED_KEYS")
    if named:
        return whole(Path(named))
    from platformdirs import user_config_path

    return user_config_path("honed") / "keys"


@dataclass(frozen=True, slots=True)
class Paths:
    """Every file and directory of one state directory."""

    state: Path

    @property
    def log(self) -> Path:
        return self.state / "honed.db"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"

    @property
    def vectors(self) -> Path:
        return self.state / "vectors.faiss"

    @property
    def models(self) -> Path:
        return self.state / "models"

    @property
    def checkpoints(self) -> Path:
        return self.state / "checkpoints"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def cache(self) -> Path:
        return self.state / "cache"

    @property
    def socket(self) -> Path:
        return self.state / "honed.sock"

    @property
    def lock(self) -> Path:
        return self.state / "honed.lock"

    @property
    def settings(self) -> Path:
        return self.state / "honed.toml"

    def checkpoint(self, checkpoint_id: str) -> Path:
        return self.checkpoints / checkpoint_id

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    def create(self) -> None:
        """Make the directories, closed to other users."""
        for path in (self.state, self.models, self.checkpoints, self.runs, self.cache):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state.chmod(0o700)
