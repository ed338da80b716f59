"""Live, ready, and an engine that died."""

import httpx
import pytest
import torch

from service.health import Health
from tests import device
from tests.fakes import SetClock
from tests.service.conftest import Desk, post, served, wait_until
from tests.service.ledger_fakes import add_candidate, add_operator, promote

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def promoted(desk: Desk) -> Desk:
    """Its champion is a checkpoint with weights of its own: they can be spoilt in memory and read again from disk."""
    promote(desk.daemon, add_operator(desk.daemon), add_candidate(desk.daemon))
    return desk


def spoil(desk: Desk) -> None:
    """Not a number in every weight, as a faulty memory module would have it."""
    engine = desk.daemon.rollout.serving.current.engine
    with torch.inference_mode():
        for weights in engine._runner._model.parameters():
            weights.fill_(float("nan"))


def test_a_started_daemon_is_live_and_ready_and_says_who_answers(shared_desk):
    shared_desk.ask()
    assert shared_desk.public.get("/health/live").json() == {"status": "live"}
    ready = shared_desk.public.get("/health/ready")
    told = ready.json()
    assert told.pop("tokens_per_second") > 0
    expected = {"status": "ready", "checkpoint": shared_desk.serving, "device": device.NAME, "weights": "float32"}
    assert (ready.status_code, told) == (200, expected)


def test_ready_means_a_step_was_made_lately_and_a_probe_makes_one(shared_desk):
    """The engine's own clock runs on; the one that judges is set ahead."""
    serving, engine = shared_desk.daemon.rollout.serving, shared_desk.daemon.rollout.serving.current.engine
    shared_desk.ask()
    clock = SetClock(engine.last_step_at())
    health = Health(serving, shared_desk.daemon.loader.tokenizer, ready_seconds=30, clock=clock)
    assert health.problem() is None
    clock.now += 29
    assert health.problem() is None
    clock.now += 2
    assert health.problem() == "the engine finished no step in the last 30 seconds"
    before = engine.last_step_at()
    health.probe()
    assert engine.last_step_at() > before
    clock.now = engine.last_step_at()
    assert health.problem() is None


def test_scoring_alone_keeps_an_engine_ready(shared_desk):
    serving, engine = shared_desk.daemon.rollout.serving, shared_desk.daemon.rollout.serving.current.engine
    shared_desk.ask()
    clock = SetClock(engine.last_step_at() + 30.0001)
    health = Health(serving, shared_desk.daemon.loader.tokenizer, ready_seconds=30, clock=clock)
    assert health.problem() is not None
    scored = {"model": shared_desk.model, "prompt": "A text.", "max_tokens": 0, "echo": True, "logprobs": 1}
    assert post(shared_desk.public, "/v1/completions", scored).status_code == 200
    assert health.problem() is None


def test_an_engine_without_a_fresh_step_is_not_ready(make_daemon):
    desk = Desk(make_daemon(ready_seconds=0.01))
    wait_until(lambda: desk.public.get("/health/ready").status_code == 503)
    refused = desk.public.get("/health/ready")
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["status"] == "not ready"
    assert "no step in the last 0.01 seconds" in refused.json()["error"]["message"]
    assert desk.public.get("/health/live").status_code == 200


def test_a_dead_engine_refuses_with_503_until_it_is_rebuilt_from_disk(promoted):
    before, champion = promoted.answer(), promoted.serving
    spoil(promoted)
    struck = promoted.chat({"messages": HI})
    assert (struck.status_code, struck.json()["error"]["code"]) == (503, "engine_failed")
    wait_until(promoted.daemon.rollout.serving.current.engine.fault)
    refused = promoted.chat({"messages": HI})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
    assert struck.headers["Retry-After"] == refused.headers["Retry-After"] == "1"
    assert promoted.public.get("/health/ready").status_code == 503
    assert "NaN" in promoted.operator.get("/operator/status").json()["problem"]
    promoted.daemon.rounds.look_after()
    assert promoted.answer() == before
    assert promoted.serving == champion
    told = promoted.public.get("/health/ready").json()
    assert (told["status"], told["checkpoint"], told["device"]) == ("ready", champion, device.NAME)


def test_a_stream_that_its_engine_leaves_ends_with_an_error_and_its_row_says_so(promoted):
    with served(promoted.apps[0]) as address:
        body = {"model": promoted.model, "messages": HI, "max_tokens": 900, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=30) as response:
            lines = response.iter_lines()
            for _ in range(6):
                next(lines)
            spoil(promoted)
            rest = [line for line in lines if line]
    assert '"code": "engine_failed"' in rest[-2]
    assert rest[-1] == "data: [DONE]"
    (row,) = promoted.daemon.stores.interactions.recent(1)
    assert row.finish_reason == "error"
    assert row.reply


def test_a_healthy_engine_is_left_alone(desk):
    engine = desk.daemon.rollout.serving.current.engine
    desk.daemon.rounds.look_after()
    assert desk.daemon.rollout.serving.current.engine is engine


def test_an_engine_rebuilt_from_a_damaged_champion_falls_back_and_status_says_so(promoted):
    champion = promoted.serving
    (promoted.daemon.paths.checkpoint(champion) / "adapter_config.json").write_text("{}")
    spoil(promoted)
    promoted.chat({"messages": HI})
    wait_until(promoted.daemon.rollout.serving.current.engine.fault)
    promoted.daemon.rounds.look_after()
    assert promoted.serving == promoted.daemon.base.id
    (refused,) = promoted.operator.get("/operator/status").json()["refused"]
    assert refused["checkpoint"] == champion
    assert "adapter_config.json" in refused["reason"]
