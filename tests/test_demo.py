"""The whole cycle on the real default model, through a real daemon process: what `honed demo` shows, asserted."""

import time
from pathlib import Path
from typing import Any

import pytest

from service import demo, models
from service.config import Settings
from service.paths import Paths, key_directory, state_directory

pytestmark = [pytest.mark.model, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def real_models() -> Path:
    """The default models, where `honed fetch` keeps them: fetched once, then used offline."""
    settings = Settings(state=state_directory())
    for source in (settings.model, settings.embedder):
        models.ensure(source, settings.paths.models, quiet=True)
    return settings.paths.models


def test_five_facts_are_learnt_approved_served_and_rolled_back(
    real_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    demo.prepare(state, real_models)
    monkeypatch.setenv("HONED_STATE", str(state))
    monkeypatch.setenv("HONED_KEYS", str(tmp_path / "keys"))
    from service.cli.demo import approve
    from service.cli.progress import follow

    reviews: list[dict[str, Any]] = []
    stage = demo.Stage(print, lambda run_id: follow(run_id, is_quiet=True), reviews.append)
    started = time.monotonic()
    with demo.daemon(state, {}) as client:
        result = demo.run(client, approve, stage)
        status = client.get("/operator/status")
    print(f"{result}\n{time.monotonic() - started:.0f} seconds")

    assert result.num_asked == len(demo.FACTS)
    assert result.num_paraphrased >= len(demo.FACTS) - 1
    assert result.retention_kept >= 0.98 * result.retention_total
    assert result.retention_total >= 20
    assert result.after_rollback == result.before
    assert reviews[0]["verdict"] == "pass"
    assert status["champion"]["is_base"]
    assert key_directory() == tmp_path / "keys"
    assert Paths(state).ledger.exists()
