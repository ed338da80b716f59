"""Changes of weights that take long or do not fit: what is decided meanwhile counts, and there is always a way back."""

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from agent.served import ServedModel
from agent.serving import LoadError
from store.records import Checkpoint, Decision, PromotionKind
from tests.service.conftest import Desk, MakeDaemon, post, wait_until
from tests.service.ledger_fakes import Person, add_candidate, add_operator, promote, signed
from tests.service.test_scope import TAUGHT, scoped_candidate

NO_ROOM = "one more model and its cache need 300 MiB and 2 MiB are free; stop something first"


class SlowLoads:
    """From now on a load waits, once it is known how it went, until it `may_end`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self._build = desk.daemon.loader.build
        monkeypatch.setattr(desk.daemon.loader, "build", self.build)

    def build(self, *what: Any) -> ServedModel:
        served = self._build(*what)
        self.began.set()
        assert self.may_end.wait(20)
        return served


class RoomForOne:
    """A machine whose memory holds one more model than the base: the next loads once the one before is gone. What is
    in `never` does not load at all.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, desk: Desk, *never: str) -> None:
        serving = desk.daemon.rollout.serving
        wait_until(lambda: not serving._draining)
        self.is_full = False
        self._never, self._engine = never, weakref.ref(serving.current.engine)
        self._build = desk.daemon.loader.build
        monkeypatch.setattr(desk.daemon.loader, "build", self.build)

    def build(self, checkpoint_id: str, *what: Any) -> ServedModel:
        if self.is_full or checkpoint_id in self._never or self._engine() is not None:
            raise LoadError(NO_ROOM)
        served = self._build(checkpoint_id, *what)
        self._engine = weakref.ref(served.engine)
        return served


@pytest.fixture
def ann(desk: Desk) -> Person:
    return add_operator(desk.daemon)


@pytest.fixture
def line(desk: Desk, ann: Person) -> tuple[Checkpoint, Checkpoint]:
    """Two that were promoted, one after the other."""
    candidates = add_candidate(desk.daemon, seed=1), add_candidate(desk.daemon, seed=2)
    for candidate in candidates:
        promote(desk.daemon, ann, candidate)
    return candidates


def decide(desk: Desk, person: Person, candidate: Checkpoint, /, **changes: object) -> Any:
    return post(desk.operator, "/operator/decide", {"envelope": signed(desk.daemon, person, candidate, **changes)})


def roll_back(desk: Desk) -> Any:
    return post(desk.operator, "/operator/rollback", {"reason": "it swears"})


def beside(call: Callable[[], Any]) -> Future[Any]:
    """In a thread of its own."""
    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def assert_nothing_was_promoted(desk: Desk, response: Any, candidate: Checkpoint, *, because: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (409, "not_promoted")
    assert because in error["message"]
    assert desk.serving == desk.daemon.stores.registry.champion(desk.daemon.base.id) == desk.daemon.base.id
    noted = desk.daemon.stores.audit.newest("checkpoint.refused").body
    assert (noted["checkpoint"], because in noted["reason"]) == (candidate.id, True)
    choice = desk.daemon.rollout._trust.choose()  # as at a restart
    assert (choice.checkpoint_id, choice.refused) == (desk.daemon.base.id, ())


# ── what happens while it loads ──────────────────────────────────────────────────────────────────────────────────────


def test_an_approval_that_expires_while_the_model_loads_promotes_nothing(desk, ann, monkeypatch):
    candidate, loads = add_candidate(desk.daemon), SlowLoads(monkeypatch, desk)
    expires = time.time() + 1.0
    yes = beside(lambda: decide(desk, ann, candidate, expires_at=expires))
    assert loads.began.wait(20)
    time.sleep(max(0.0, expires - time.time()) + 0.01)
    loads.may_end.set()
    assert_nothing_was_promoted(desk, yes.result(20), candidate, because="expired")


def test_a_no_while_the_model_loads_is_taken_at_once_and_stops_the_promotion(desk, ann, monkeypatch):
    bob, candidate = add_operator(desk.daemon, "bob", sponsor=ann), add_candidate(desk.daemon)
    loads = SlowLoads(monkeypatch, desk)
    yes = beside(lambda: decide(desk, ann, candidate))
    assert loads.began.wait(20)
    assert decide(desk, bob, candidate, decision=Decision.REJECT).json()["decision"] == "reject"
    assert not yes.done()
    loads.may_end.set()
    assert_nothing_was_promoted(desk, yes.result(20), candidate, because="rejected")


def test_an_approval_never_makes_a_second_promotion_though_it_waited_for_the_first(
    make_daemon: MakeDaemon, monkeypatch
):
    """Carol's yes completes a quorum while Ann's and Bob's loads; the rollback between must not revive theirs."""
    desk = Desk(make_daemon(approvals_required=2))
    ann = add_operator(desk.daemon, "ann")
    bob, carol = (add_operator(desk.daemon, name, sponsor=ann) for name in ("bob", "carol"))
    candidate, rollout = add_candidate(desk.daemon), desk.daemon.rollout
    decide(desk, ann, candidate)
    promote_, held = rollout.promote, threading.Event()
    monkeypatch.setattr(rollout, "promote", lambda *a, **k: held.wait(20) and promote_(*a, **k))
    late = beside(lambda: decide(desk, carol, candidate))
    wait_until(lambda: len(desk.daemon.stores.registry.approvals_of(candidate.id)) == 2)
    monkeypatch.setattr(rollout, "promote", promote_)
    assert decide(desk, bob, candidate).json()["promoted"]
    roll_back(desk)
    held.set()
    assert late.result(20).json()["error"]["code"] == "not_promoted"
    assert "made a promotion before" in late.result().json()["error"]["message"]
    assert desk.serving == desk.daemon.base.id


# ── the way back where memory is short ───────────────────────────────────────────────────────────────────────────────


def test_without_room_for_two_models_a_rollback_lets_the_champion_go_first(desk, line, monkeypatch):
    first, second = line
    promotions = desk.daemon.stores.registry.promotions
    RoomForOne(monkeypatch, desk)
    assert roll_back(desk).json() == {"champion": first.id, "previous": second.id}
    assert desk.serving == desk.ask()["honed"]["checkpoint"] == promotions(1)[0].checkpoint_id == first.id
    assert roll_back(desk).json() == {"champion": desk.daemon.base.id, "previous": first.id}
    assert desk.serving == desk.ask()["honed"]["checkpoint"] == desk.daemon.base.id
    assert [promotion.kind for promotion in promotions(2)] == [PromotionKind.ROLLBACK] * 2
    nothing = roll_back(desk)
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (409, "no_rollback")
    assert "there is nothing to go back to" in nothing.json()["error"]["message"]


def test_what_does_not_load_with_all_the_room_either_is_passed_over_on_record_too(desk, line, monkeypatch):
    first, second = line
    RoomForOne(monkeypatch, desk, first.id)
    assert roll_back(desk).json()["champion"] == desk.daemon.base.id
    assert desk.serving == desk.daemon.stores.registry.champion(desk.daemon.base.id) == desk.daemon.base.id
    further, back = desk.daemon.stores.registry.promotions(2)
    assert (back.previous_id, back.checkpoint_id) == (second.id, first.id)
    assert (further.previous_id, further.checkpoint_id) == (first.id, desk.daemon.base.id)
    assert desk.operator.get("/operator/status").json()["refused"] == []


def test_a_rollback_after_which_nothing_loads_says_so_and_is_finished_as_soon_as_something_does(
    desk, line, monkeypatch
):
    first, _ = line
    machine = RoomForOne(monkeypatch, desk)
    machine.is_full = True
    response = roll_back(desk)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_loaded")
    message = response.json()["error"]["message"]
    assert f"the rollback to {first.id[:12]} is on record" in message
    assert NO_ROOM in message and "nothing answers until" in message
    assert desk.daemon.stores.registry.champion(desk.daemon.base.id) == first.id
    asked = desk.chat({"messages": [{"role": "user", "content": "Hi"}]})
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "engine_unavailable")
    assert NO_ROOM in desk.operator.get("/operator/status").json()["problem"]
    machine.is_full = False
    desk.daemon.rounds.look_after()
    assert desk.serving == desk.ask()["honed"]["checkpoint"] == first.id
    assert desk.operator.get("/operator/status").json()["refused"] == []


def test_a_rollback_that_did_not_load_is_finished_by_a_restart(desk, line, monkeypatch, make_daemon):
    machine = RoomForOne(monkeypatch, desk)
    machine.is_full = True
    assert roll_back(desk).status_code == 503
    desk.daemon.close()
    monkeypatch.undo()
    assert Desk(make_daemon()).serving == line[0].id


def test_while_the_weights_change_in_their_place_questions_are_told_to_come_again(desk, line, monkeypatch):
    RoomForOne(monkeypatch, desk)
    loads = SlowLoads(monkeypatch, desk)
    back = beside(lambda: roll_back(desk))
    assert loads.began.wait(20)
    asked = desk.chat({"messages": [{"role": "user", "content": "Hi"}]})
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "engine_unavailable")
    assert "send the request again" in asked.json()["error"]["message"]
    assert desk.operator.get("/operator/status").json()["ready"] is False
    loads.may_end.set()
    assert back.result(20).status_code == 200
    assert desk.ask()["honed"]["checkpoint"] == line[0].id


def test_where_the_base_lives_beside_the_champion_it_answers_while_the_weights_change(desk, ann, monkeypatch):
    first, second = (scoped_candidate(desk.daemon, seed=seed) for seed in (1, 2))
    promote(desk.daemon, ann, first)
    promote(desk.daemon, ann, second)
    RoomForOne(monkeypatch, desk)
    loads = SlowLoads(monkeypatch, desk)
    back = beside(lambda: roll_back(desk))
    assert loads.began.wait(20)
    assert desk.ask(TAUGHT)["honed"]["checkpoint"] == desk.daemon.base.id
    loads.may_end.set()
    assert back.result(20).json() == {"champion": first.id, "previous": second.id}
    assert desk.ask(TAUGHT)["honed"]["checkpoint"] == first.id


def test_a_failure_of_the_accelerators_own_does_not_bar_the_way_back(desk, line, monkeypatch):
    build, is_first = desk.daemon.loader.build, iter([True])

    def build_at_second(*what: Any) -> ServedModel:
        if next(is_first, False):
            raise RuntimeError("CUDA out of memory")
        return build(*what)

    monkeypatch.setattr(desk.daemon.loader, "build", build_at_second)
    assert roll_back(desk).json()["champion"] == line[0].id
    assert desk.serving == line[0].id


def test_a_promotion_without_room_says_so_and_what_answered_still_does(desk, ann, monkeypatch):
    candidate = add_candidate(desk.daemon)
    RoomForOne(monkeypatch, desk)
    response = decide(desk, ann, candidate)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_promoted")
    assert NO_ROOM in response.json()["error"]["message"]
    assert desk.ask()["honed"]["checkpoint"] == desk.daemon.base.id


def test_a_rebuild_for_a_fault_that_a_rollback_ended_meanwhile_leaves_what_answers(desk, line):
    assert roll_back(desk).status_code == 200
    engine = desk.daemon.rollout.serving.current.engine
    desk.daemon.rollout.rebuild()
    assert desk.daemon.rollout.serving.current.engine is engine
