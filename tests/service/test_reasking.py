"""Asking again what another checkpoint had answered."""

from dataclasses import replace

import numpy as np
import pytest

from agent.doubts import DRAWN, SampledDoubts, TracedDoubts
from agent.engine import EngineBusy
from agent.uncertainty import mean_entropy
from service.daemon import Daemon
from service.reasking import MAX_SECONDS, Doubt, Reasking
from store.records import FinishReason, Interaction
from tests.fakes import SetClock
from tests.service.conftest import Desk, MakeDaemon
from tests.service.ledger_fakes import add_candidate, add_operator, promote

VECTOR = np.zeros(4, dtype=np.float32)  # a champion that answers everything looks at none
KEY = 7


@pytest.fixture
def desk(make_daemon: MakeDaemon, tmp_path) -> Desk:
    """One whose champion is no longer the base."""
    desk = Desk(make_daemon())
    desk.ask("What is a boat?", max_tokens=128)
    promote(desk.daemon, add_operator(desk.daemon), add_candidate(desk.daemon))
    return desk


def reasking(daemon: Daemon) -> Reasking:
    return Reasking(daemon.rollout.serving, daemon.loader.tokenizer, TracedDoubts("mean_entropy"))


def logged(daemon: Daemon) -> Interaction:
    (interaction,) = daemon.stores.interactions.unscored(9)
    return interaction


def test_what_another_checkpoint_answered_is_doubted_as_what_serves_now_doubts_it(desk: Desk) -> None:
    again = reasking(desk.daemon)
    before = logged(desk.daemon)
    again.ask([(KEY, before, VECTOR)])
    desk.ask("What is a boat?", max_tokens=128)
    now = desk.daemon.stores.interactions.unscored(9)[-1]
    assert again.known == {KEY: Doubt(desk.serving, pytest.approx(mean_entropy(now.tokens), rel=1e-3))}
    assert mean_entropy(now.tokens) != pytest.approx(mean_entropy(before.tokens), rel=1e-2)


def test_what_it_answered_itself_is_not_asked_again(desk: Desk) -> None:
    again = reasking(desk.daemon)
    again.ask([(KEY, replace(logged(desk.daemon), checkpoint_id=desk.serving), VECTOR)])
    assert again.known == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_tokens": 600},
        {"prompt_tokens": 3},
        {"messages": ({"role": "user", "content": "What?"}, {"role": "user", "content": "<tool_response>4"})},
        {"messages": ({"role": "user", "content": "What? " * 3000},), "prompt_tokens": 5},
    ],
    ids=["long", "no chat", "a tool's answer", "longer than a context"],
)
def test_what_cannot_be_asked_keeps_its_doubt(desk: Desk, changes: dict) -> None:
    again = reasking(desk.daemon)
    again.ask([(KEY, replace(logged(desk.daemon), **changes), VECTOR)])
    assert again.known == {}


def test_a_busy_engine_is_left_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise EngineBusy("the queue is full")

    monkeypatch.setattr(desk.daemon.rollout.serving.current.engine, "submit", refuse)
    again = reasking(desk.daemon)
    again.ask([(KEY, logged(desk.daemon), VECTOR)])
    assert again.known == {}


def test_an_engine_that_died_gives_no_doubt(desk: Desk) -> None:
    runner = desk.daemon.rollout.serving.current.engine._runner
    runner.run = lambda *_: (_ for _ in ()).throw(RuntimeError("a fault of this test's"))
    again = reasking(desk.daemon)
    again.ask([(KEY, logged(desk.daemon), VECTOR)])
    assert again.known == {}


def test_a_question_is_asked_again_once_and_anew_when_another_model_serves(desk: Desk) -> None:
    again = reasking(desk.daemon)
    before = logged(desk.daemon)
    again.ask([(KEY, before, VECTOR)])
    generated = desk.daemon.rollout.serving.stats().generated_tokens
    again.ask([(KEY, before, VECTOR)])
    assert desk.daemon.rollout.serving.stats().generated_tokens == generated
    desk.daemon.rollout.serving.flip(replace(desk.daemon.rollout.serving.current, checkpoint_id="other"))
    assert again.known == {}
    again.ask([(KEY, before, VECTOR)])
    assert again.known[KEY].checkpoint_id == "other"


def test_an_answer_without_tokens_is_asked_again_like_any(desk: Desk) -> None:
    silent = replace(logged(desk.daemon), tokens=(), uncertainty=None, finish_reason=FinishReason.STOP)
    again = reasking(desk.daemon)
    again.ask([(KEY, silent, VECTOR)])
    assert again.known[KEY].uncertainty > 0


def test_it_waits_while_people_are_answered_and_stops_when_its_time_is_up(desk: Desk, monkeypatch) -> None:
    clock, naps = SetClock(), list[float]()

    def sleep(seconds: float) -> None:
        clock.now += seconds
        naps.append(seconds)

    again = Reasking(
        desk.daemon.rollout.serving,
        desk.daemon.loader.tokenizer,
        TracedDoubts("mean_entropy"),
        clock=clock,
        sleep=sleep,
    )
    monkeypatch.setattr(desk.daemon.rollout.serving, "num_active", lambda: len(naps) < 5)
    assert again.ask([(KEY, logged(desk.daemon), VECTOR)]) == 1
    assert (len(naps), set(again.known)) == (5, {KEY})
    monkeypatch.setattr(desk.daemon.rollout.serving, "num_active", lambda: 1)
    assert again.ask([(KEY + 1, logged(desk.daemon), VECTOR)]) == 0
    assert set(again.known) == {KEY}
    assert sum(naps) >= MAX_SECONDS


def test_no_more_doubts_are_kept_of_one_model_than_a_look_at_the_log_takes(desk: Desk, monkeypatch) -> None:
    monkeypatch.setattr("service.reasking.MAX_KNOWN", 2)
    again = reasking(desk.daemon)
    assert again.ask([(key, logged(desk.daemon), VECTOR) for key in range(4)]) == 4
    assert set(again.known) == {0, 1}


def test_with_a_signal_over_samples_what_it_answered_itself_is_asked_again_too(desk: Desk) -> None:
    told = SampledDoubts("semantic_entropy", desk.daemon.sentence_embedder)
    again = Reasking(desk.daemon.rollout.serving, desk.daemon.loader.tokenizer, told)
    again.ask([(KEY, replace(logged(desk.daemon), checkpoint_id=desk.serving), VECTOR)])
    assert not again.is_as_logged
    assert 0.0 <= again.known[KEY].uncertainty <= np.log(DRAWN) + 1e-6
