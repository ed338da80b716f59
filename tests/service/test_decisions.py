"""Signed decisions through the operator's door: what is refused and with which code, and what a yes does."""

import base64
import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from policies.engine import PolicyError
from policies.operators import introduce
from policies.refusal import EXIT_CODES, Refusal
from service import keys
from service.daemon import Daemon
from service.decisions import DecisionRefused, Decisions
from store.database import StoreError
from store.records import Approval, Checkpoint, Decision, Operator, Outcome
from store.registry import ChampionMoved, Registry
from store.rows import insert, to_row
from tests.fakes import adapter_files
from tests.service.conftest import Desk, MakeDaemon, post, served, wait_until
from tests.service.ledger_fakes import RESULTS, Person, add_candidate, add_operator, judge, promote, signed, stranger

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def office(tmp_path_factory, make_settings) -> Desk:
    """A daemon whose candidates are only ever refused: the base stays its champion."""
    daemon = Daemon(make_settings(tmp_path_factory.mktemp("office") / "state"))
    yield Desk(daemon)
    daemon.close()


@pytest.fixture(scope="module")
def ann(office: Desk) -> Person:
    return add_operator(office.daemon, "ann")


def decide(desk: Desk, envelope: object):
    return post(desk.operator, "/operator/decide", {"envelope": envelope})


def approve(desk: Desk, person: Person, candidate: Checkpoint, /, **changes: object):
    return decide(desk, signed(desk.daemon, person, candidate, **changes))


def assert_refused(desk: Desk, response, refusal: Refusal) -> None:
    champion = desk.serving
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["exit_code"]) == (409, refusal.value, EXIT_CODES[refusal])
    assert error["message"]
    assert error["param"] == "envelope"
    noted = desk.daemon.stores.audit.newest("approval.refused").body
    assert (noted["refusal"], noted["message"]) == (refusal.value, error["message"])
    assert desk.serving == champion == desk.daemon.stores.registry.champion(desk.daemon.base.id)


def edited(envelope: dict, **changes: object) -> dict:
    """The statement changed after it was signed."""
    statement = json.loads(base64.b64decode(envelope["payload"])) | changes
    text = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**envelope, "payload": base64.b64encode(text.encode()).decode()}


def test_a_key_nobody_knows_is_refused(office, ann):
    candidate = add_candidate(office.daemon)
    assert_refused(office, approve(office, stranger("ann"), candidate), Refusal.UNKNOWN_KEY)
    assert office.daemon.stores.registry.approvals_of(candidate.id) == []


@pytest.mark.parametrize("change", ["reason", "expires_at", "candidate"])
def test_a_statement_edited_after_signing_is_refused(office, ann, change):
    candidate, other = add_candidate(office.daemon), add_candidate(office.daemon, seed=2)
    value = {"reason": "something else", "expires_at": time.time() + 9e5, "candidate": other.id}[change]
    envelope = edited(signed(office.daemon, ann, candidate), **{change: value})
    assert_refused(office, decide(office, envelope), Refusal.BAD_SIGNATURE)


def test_anothers_name_on_ones_own_signature_is_refused(office, ann):
    candidate = add_candidate(office.daemon)
    response = approve(office, ann, candidate, operator="bob")
    assert_refused(office, response, Refusal.BAD_SIGNATURE)


@pytest.mark.parametrize(
    ("issued", "expires", "refusal"),
    [
        (-7200, -3600, Refusal.EXPIRED),
        (-7200, 0, Refusal.EXPIRED),
        (600, 7200, Refusal.NOT_YET_VALID),
        (0, 31 * 86_400, Refusal.OVERLONG),
    ],
)
def test_a_statement_out_of_its_time_is_refused(office, ann, issued, expires, refusal):
    now = time.time()
    response = approve(office, ann, add_candidate(office.daemon), issued_at=now + issued, expires_at=now + expires)
    assert_refused(office, response, refusal)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"champion": "c" * 64}, Refusal.CHAMPION_MOVED),
        ({"base": "c" * 64}, Refusal.CHAMPION_MOVED),
        ({"policy": "c" * 64}, Refusal.POLICY_MOVED),
        ({"evaluation": "c" * 64}, Refusal.EVALUATION_MOVED),
        ({"dataset": "c" * 64}, Refusal.EVALUATION_MOVED),
        ({"candidate": "c" * 64}, Refusal.UNKNOWN_CANDIDATE),
    ],
)
def test_a_statement_on_something_else_than_what_is_on_record_is_refused(office, ann, change, refusal):
    assert_refused(office, approve(office, ann, add_candidate(office.daemon), **change), refusal)


@pytest.mark.parametrize(
    ("outcome", "refusal"),
    [
        (Outcome.FAIL, Refusal.VERDICT_FAIL),
        (Outcome.INCONCLUSIVE, Refusal.VERDICT_INCONCLUSIVE),
    ],
)
def test_no_signature_lifts_a_candidate_that_policy_did_not_pass(office, ann, outcome, refusal):
    candidate = add_candidate(office.daemon, outcome=outcome)
    assert_refused(office, approve(office, ann, candidate), refusal)


def test_a_candidate_that_was_never_judged_is_refused(office, ann):
    candidate = add_candidate(office.daemon, outcome=None)
    response = approve(office, ann, candidate)
    assert response.status_code == 409
    assert response.json()["error"]["code"] in (Refusal.VERDICT_INCONCLUSIVE, Refusal.EVALUATION_MOVED)


def test_a_short_id_in_a_signed_statement_is_no_candidate(office, ann):
    """Ids are shortened for people; what is signed is whole. Also when the beginning fits several."""
    first = add_candidate(office.daemon).id
    others = [c.id for c in office.daemon.stores.registry.checkpoints()]
    assert len(others) > 1
    ambiguous = next(
        (prefix for prefix in "0123456789abcdef" if sum(other.startswith(prefix) for other in others) > 1), None
    )
    for short in (first[:12], ambiguous or first[:12]):
        response = approve(office, ann, add_candidate(office.daemon), candidate=short)
        assert_refused(office, response, Refusal.UNKNOWN_CANDIDATE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda envelope: {},
        lambda envelope: {**envelope, "payloadType": "application/vnd.in-toto+json"},
        lambda envelope: {**envelope, "payload": "!!!"},
        lambda envelope: {**envelope, "signatures": []},
        lambda envelope: {**envelope, "signatures": None},
        lambda envelope: {**envelope, "payload": None},
        lambda envelope: {**envelope, "payload": 7, "extra": 1},
        lambda envelope: {"payload": {"a": [1, 2]}, "payloadType": [], "signatures": {}},
        lambda envelope: edited(envelope, wibble=1),
        lambda envelope: edited(envelope, candidate=None),
    ],
)
def test_what_is_no_signed_decision_is_refused_with_a_code_and_never_an_accident(
    office, ann, spoil: Callable[[dict], dict]
):
    response = decide(office, spoil(signed(office.daemon, ann, add_candidate(office.daemon))))
    error = response.json()["error"]
    assert response.status_code == 409
    assert error["code"] in (Refusal.WRONG_TYPE, Refusal.MALFORMED, Refusal.BAD_SIGNATURE)
    assert error["exit_code"] == EXIT_CODES[Refusal(error["code"])]


def test_a_rejected_candidate_is_never_promoted(office, ann):
    candidate = add_candidate(office.daemon)
    no = approve(office, ann, candidate, decision=Decision.REJECT)
    assert no.json() == {
        "candidate": candidate.id,
        "decision": "reject",
        "approvals": 0,
        "promoted": False,
        "previous": None,
    }
    assert_refused(office, approve(office, ann, candidate), Refusal.REJECTED)
    waiting = [c["id"] for c in office.operator.get("/operator/status").json()["candidates"]]
    assert candidate.id not in waiting


def test_one_signature_on_two_candidates_is_refused_as_used_before(office, ann):
    """The nonce is all that two statements may not share."""
    first, second = add_candidate(office.daemon), add_candidate(office.daemon, seed=2)
    no = signed(office.daemon, ann, first, decision=Decision.REJECT, nonce="only once")
    assert decide(office, no).json()["decision"] == "reject"
    assert_refused(office, approve(office, ann, second, nonce="only once"), Refusal.REPLAYED)
    assert office.daemon.stores.registry.approvals_of(second.id) == []


def test_an_operator_introduced_by_nobody_known_is_refused(office, ann):
    eve = stranger("eve")
    envelope = introduce("eve", keys.public_hex(eve.signer), time.time(), [eve.signer])
    response = post(office.operator, "/operator/operators", {"envelope": envelope})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "operator_refused")
    assert [operator.name for operator in office.daemon.stores.registry.operators()] == ["ann"]


def test_there_is_nothing_to_roll_back_to_while_the_base_serves(office):
    response = post(office.operator, "/operator/rollback", {"reason": "just so"})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "no_rollback")


def test_a_good_approval_promotes_at_once_and_a_rollback_restores_every_byte(desk):
    questions = ["Hi", "What is the code?", "Sing"]
    ann, candidate = add_operator(desk.daemon), add_candidate(desk.daemon)
    base = desk.serving
    before = [desk.answer(question) for question in questions]
    yes = approve(desk, ann, candidate)
    assert yes.json() == {
        "candidate": candidate.id,
        "decision": "approve",
        "approvals": 1,
        "promoted": True,
        "previous": base,
    }
    after = desk.ask()
    assert after["honed"]["checkpoint"] == after["system_fingerprint"] == desk.serving == candidate.id
    assert [desk.answer(question) for question in questions] != before
    status = desk.operator.get("/operator/status").json()
    assert (status["champion"]["id"], status["previous"], status["candidates"]) == (candidate.id, base, [])
    back = post(desk.operator, "/operator/rollback", {"reason": "answers got worse"})
    assert back.json() == {"champion": base, "previous": candidate.id}
    assert [desk.answer(question) for question in questions] == before
    assert desk.ask()["honed"]["checkpoint"] == base
    again = post(desk.operator, "/operator/rollback", {"reason": "once more"})
    assert again.status_code == 409


def test_rollbacks_go_back_one_promotion_after_the_other(desk):
    ann = add_operator(desk.daemon)
    first, second = add_candidate(desk.daemon, seed=1), add_candidate(desk.daemon, seed=2)
    promote(desk.daemon, ann, first)
    answer = desk.answer()
    promote(desk.daemon, ann, second)
    for expected in (first.id, desk.daemon.base.id):
        assert post(desk.operator, "/operator/rollback", {"reason": "back"}).json()["champion"] == expected
        assert desk.serving == expected
        if expected == first.id:
            assert desk.answer() == answer


def test_an_approval_given_over_another_champion_is_refused_once_that_one_moved(desk):
    ann = add_operator(desk.daemon)
    first, second = add_candidate(desk.daemon, seed=1), add_candidate(desk.daemon, seed=2)
    stale = signed(desk.daemon, ann, second)
    promote(desk.daemon, ann, first)
    assert_refused(desk, decide(desk, stale), Refusal.CHAMPION_MOVED)


def test_an_approval_works_once(desk):
    ann, candidate = add_operator(desk.daemon), add_candidate(desk.daemon)
    envelope = signed(desk.daemon, ann, candidate)
    assert decide(desk, envelope).json()["promoted"]
    post(desk.operator, "/operator/rollback", {"reason": "worse"})
    assert_refused(desk, decide(desk, envelope), Refusal.REPLAYED)
    assert approve(desk, ann, candidate).json()["promoted"]  # a new signature is a new decision


def test_two_operators_are_two_people_and_the_second_yes_promotes(make_daemon: MakeDaemon):
    desk = Desk(make_daemon(approvals_required=2))
    ann = add_operator(desk.daemon, "ann")
    bob = add_operator(desk.daemon, "bob", sponsor=ann)
    candidate = add_candidate(desk.daemon)
    first = approve(desk, ann, candidate).json()
    assert (first["approvals"], first["promoted"]) == (1, False)
    assert_refused(desk, approve(desk, ann, candidate), Refusal.SAME_OPERATOR)
    assert desk.serving == desk.daemon.base.id
    review = desk.operator.get(f"/operator/review?checkpoint={candidate.id[:12]}").json()
    assert [approval["operator"] for approval in review["approvals"]] == ["ann"]
    second = approve(desk, bob, candidate).json()
    assert (second["approvals"], second["promoted"]) == (2, True)
    assert desk.serving == candidate.id
    promotion = desk.daemon.stores.registry.promotion_to(candidate.id)
    assert len(promotion.approval_ids) == 2


def test_one_no_outweighs_an_earlier_yes(make_daemon: MakeDaemon):
    desk = Desk(make_daemon(approvals_required=2))
    ann = add_operator(desk.daemon, "ann")
    bob = add_operator(desk.daemon, "bob", sponsor=ann)
    candidate = add_candidate(desk.daemon)
    approve(desk, ann, candidate)
    assert not approve(desk, bob, candidate, decision=Decision.REJECT).json()["promoted"]
    assert_refused(desk, approve(desk, bob, candidate), Refusal.REJECTED)


def test_an_expired_first_yes_does_not_count_for_the_second(make_daemon: MakeDaemon):
    desk = Desk(make_daemon(approvals_required=2))
    ann = add_operator(desk.daemon, "ann")
    bob = add_operator(desk.daemon, "bob", sponsor=ann)
    candidate = add_candidate(desk.daemon)
    approve(desk, ann, candidate, expires_at=time.time() + 0.5)
    time.sleep(0.6)
    second = approve(desk, bob, candidate).json()
    assert (second["approvals"], second["promoted"]) == (1, False)
    assert approve(desk, ann, candidate).json()["promoted"]


def test_after_a_failed_load_the_same_operator_may_try_again(desk):
    ann, candidate = add_operator(desk.daemon), add_candidate(desk.daemon)
    weights = desk.daemon.paths.checkpoint(candidate.id) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\x00\x00")
    failed = approve(desk, ann, candidate)
    assert (failed.status_code, failed.json()["error"]["code"]) == (409, "not_promoted")
    assert "adapter_model.safetensors" in failed.json()["error"]["message"]
    assert desk.serving == desk.daemon.base.id
    weights.write_bytes(whole)
    assert approve(desk, ann, candidate).json()["promoted"]
    assert desk.serving == candidate.id
    # both signatures of one person still carry it at a load
    assert desk.daemon.rollout._trust.choose().checkpoint_id == candidate.id


NO_LORA = {"adapter_config.json": json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": True}).encode()}


@pytest.mark.parametrize(
    "change",
    [
        NO_LORA,
        {"adapter_config.json": b"[]"},
        {"adapter_config.json": b"{"},
        {"adapter_config.json": b'{"peft_type": "LORA", "r": 0, "lora_alpha": 4}'},
        {"adapter_config.json": b'{"peft_type": "LORA"}'},
        {"adapter_model.safetensors": b"not tensors at all"},
        {"adapter_model.safetensors": b""},
        {"adapter_model.safetensors": adapter_files(scale=float("nan"))["adapter_model.safetensors"]},
    ],
)
def test_a_candidate_whose_files_are_no_adapter_is_refused_and_what_answered_still_does(office, ann, change):
    """Sealed and approved, and still nothing that can serve: a bad training run, say."""
    candidate = add_candidate(office.daemon, files=adapter_files() | change)
    before = office.answer()
    response = approve(office, ann, candidate)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_promoted")
    assert office.serving == office.daemon.base.id
    assert office.answer() == before
    assert office.daemon.stores.audit.newest("checkpoint.refused").body["checkpoint"] == candidate.id


def test_answers_under_way_during_a_promotion_end_on_the_old_weights(desk):
    ann, candidate = add_operator(desk.daemon), add_candidate(desk.daemon)
    base = desk.serving
    body = {"model": desk.model, "messages": HI, "max_tokens": 300, "temperature": 0, "stream": True}
    alone = desk.ask(max_tokens=300)["choices"][0]["message"]["content"]
    with served(desk.apps[0]) as address, httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            for _ in range(8):
                next(lines)
            assert approve(desk, ann, candidate).json()["promoted"]
            after = client.post("/v1/chat/completions", json=body | {"stream": False, "max_tokens": 4}).json()
            events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert after["honed"]["checkpoint"] == candidate.id
    assert {event["system_fingerprint"] for event in events} == {base}
    assert events[-1]["honed"]["checkpoint"] == base
    row = desk.daemon.stores.interactions.get(events[-1]["honed"]["interaction_id"])
    assert (row.checkpoint_id, row.reply, row.finish_reason) == (base, alone, "length")


def test_every_answer_around_many_swaps_comes_from_the_checkpoint_it_names(desk):
    ann = add_operator(desk.daemon)
    expected = {desk.serving: desk.answer()}
    candidates = [add_candidate(desk.daemon, seed=seed) for seed in (1, 2)]
    replies: list[dict] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            replies.append(client.post("/v1/chat/completions", json=body).json())

    body = {"model": desk.model, "messages": HI, "max_tokens": 6, "temperature": 0}
    with served(desk.apps[0]) as address, httpx.Client(base_url=address, timeout=60) as client:
        threads = [threading.Thread(target=keep_asking) for _ in range(3)]
        for thread in threads:
            thread.start()
        for candidate in candidates:
            assert approve(desk, ann, candidate).json()["promoted"]
            expected[candidate.id] = desk.answer()
        for _ in candidates:
            post(desk.operator, "/operator/rollback", {"reason": "back"})
        is_over.set()
        for thread in threads:
            thread.join()
    assert all("honed" in reply for reply in replies), replies
    wrong = [r for r in replies if r["choices"][0]["message"]["content"] != expected[r["honed"]["checkpoint"]]]
    assert wrong == []
    wait_until(lambda: desk.serving == desk.daemon.base.id)


def test_two_approvals_at_the_same_moment_make_one_champion_each_in_turn(desk):
    """Both were signed over the base: one is promoted, the other told that the champion moved."""
    ann = add_operator(desk.daemon)
    envelopes = [signed(desk.daemon, ann, add_candidate(desk.daemon, seed=seed)) for seed in (1, 2)]
    together = threading.Barrier(2)
    lost: list[Exception] = []

    def send(envelope: dict) -> None:
        together.wait()
        try:
            desk.daemon.decisions.decide(envelope)
        except (DecisionRefused, ChampionMoved) as error:
            lost.append(error)

    threads = [threading.Thread(target=send, args=(envelope,)) for envelope in envelopes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 1
    (promotion,) = desk.daemon.stores.registry.promotions()
    assert desk.serving == promotion.checkpoint_id


def test_a_rollback_passes_over_a_checkpoint_that_was_damaged_meanwhile_and_still_goes_back(desk):
    ann = add_operator(desk.daemon)
    first, second = add_candidate(desk.daemon, seed=1), add_candidate(desk.daemon, seed=2)
    promote(desk.daemon, ann, first)
    promote(desk.daemon, ann, second)
    shutil.rmtree(desk.daemon.paths.checkpoint(first.id))
    response = post(desk.operator, "/operator/rollback", {"reason": "back"})
    assert response.json() == {"champion": desk.daemon.base.id, "previous": second.id}
    assert desk.serving == desk.daemon.base.id
    refused = desk.daemon.stores.audit.newest("checkpoint.refused")
    assert refused is not None and refused.body["checkpoint"] == first.id


def test_a_rollback_passes_over_a_checkpoint_that_was_rejected(desk):
    ann = add_operator(desk.daemon)
    first, second = add_candidate(desk.daemon, seed=1), add_candidate(desk.daemon, seed=2)
    promote(desk.daemon, ann, first)
    promote(desk.daemon, ann, second)
    assert approve(desk, ann, first, decision=Decision.REJECT).status_code == 200
    assert desk.operator.get("/operator/status").json()["previous"] == desk.daemon.base.id
    response = post(desk.operator, "/operator/rollback", {"reason": "back"})
    assert response.json() == {"champion": desk.daemon.base.id, "previous": second.id}


@pytest.mark.parametrize("decision", Decision)
def test_what_serves_already_is_neither_approved_nor_rejected_and_the_way_back_stays(desk, decision):
    ann = add_operator(desk.daemon)
    first, second = add_candidate(desk.daemon, seed=1), add_candidate(desk.daemon, seed=2)
    promote(desk.daemon, ann, first)
    promote(desk.daemon, ann, second)
    response = approve(desk, ann, second, decision=decision)
    assert_refused(desk, response, Refusal.CHAMPION_MOVED)
    assert "serves already; first take it back: honed rollback" in response.json()["error"]["message"]
    assert post(desk.operator, "/operator/rollback", {"reason": "back"}).json()["champion"] == first.id
    assert approve(desk, ann, second, decision=Decision.REJECT).status_code == 200
    assert_refused(desk, approve(desk, ann, second), Refusal.REJECTED)


# ── a quorum is of signatures, not of rows ───────────────────────────────────────────────────────────────────────────


def slip_in(daemon: Daemon, row_id: str, person: Person, candidate: Checkpoint, envelope: dict) -> None:
    """An approval's row beside the audit chain, as somebody with the file in hand would write it."""
    now = time.time()
    row = Approval(
        row_id, now, candidate.id, Decision.APPROVE, person.key_id, person.name, "looks fine", now + 9e5, envelope
    )
    daemon.stores.ledger.write(lambda conn: insert(conn, "approvals", to_row(row)))


@pytest.fixture
def board(make_daemon: MakeDaemon) -> Desk:
    """Where two have to agree."""
    return Desk(make_daemon(approvals_required=2))


@pytest.fixture
def two(board: Desk) -> tuple[Person, Person]:
    ann = add_operator(board.daemon, "ann")
    return ann, add_operator(board.daemon, "bob", sponsor=ann)


def test_a_yes_forged_into_the_ledger_is_not_counted(board, two):
    ann, bob = two
    candidate = add_candidate(board.daemon)
    for number, envelope in enumerate(
        [
            signed(board.daemon, stranger("bob"), candidate),
            edited(signed(board.daemon, bob, candidate, decision=Decision.REJECT), decision="approve"),
            signed(board.daemon, bob, add_candidate(board.daemon, seed=2)),
            {},
        ]
    ):
        slip_in(board.daemon, f"forged-{number}", bob, candidate, envelope)
    first = approve(board, ann, candidate).json()
    assert (first["approvals"], first["promoted"], board.serving) == (1, False, board.daemon.base.id)
    assert approve(board, bob, candidate).json()["promoted"]


def test_a_spent_yes_under_a_new_number_is_not_counted(board, two):
    ann, bob = two
    candidate = add_candidate(board.daemon)
    approve(board, ann, candidate)
    yes = signed(board.daemon, bob, candidate)
    assert decide(board, yes).json()["promoted"]
    post(board.operator, "/operator/rollback", {"reason": "worse"})
    slip_in(board.daemon, "another", bob, candidate, yes)
    again = approve(board, ann, candidate).json()
    assert (again["approvals"], again["promoted"]) == (1, False)


def test_a_yes_given_on_another_evaluation_is_not_counted(board, two):
    ann, bob = two
    candidate = add_candidate(board.daemon)
    approve(board, ann, candidate)
    judge(board.daemon, candidate, Outcome.PASS, results={**RESULTS, "num_train": 4})
    second = approve(board, bob, candidate).json()
    assert (second["approvals"], second["promoted"]) == (1, False)
    assert approve(board, ann, candidate).json()["promoted"]


# ── at the same moment ───────────────────────────────────────────────────────────────────────────────────────────────


class Lingering(Registry):
    """Whoever asks who the operators are waits a little for a second one who asks."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon.stores.ledger, daemon.stores.audit)
        self._together = threading.Barrier(2)

    def operators(self) -> list[Operator]:
        found = super().operators()
        with contextlib.suppress(threading.BrokenBarrierError):
            self._together.wait(0.5)
        return found


def lingering(daemon: Daemon, *, approvals_required: int = 1) -> Decisions:
    return Decisions(
        registry=Lingering(daemon),
        rollout=daemon.rollout,
        policy_set=daemon.policy_set,
        base_id=daemon.base.id,
        approvals_required=approvals_required,
    )


def at_once(*calls: Callable[[], object]) -> list[Exception]:
    """What was raised, all of them having begun together."""
    raised: list[Exception] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except (PolicyError, DecisionRefused, StoreError) as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_of_two_first_operators_at_once_one_is_the_first_and_the_other_needs_their_signature(desk):
    decisions, people = lingering(desk.daemon), [stranger("ann"), stranger("bob")]
    envelopes = [introduce(p.name, keys.public_hex(p.signer), time.time(), [p.signer]) for p in people]
    (error,) = at_once(*(partial(decisions.add_operator, envelope) for envelope in envelopes))
    assert isinstance(error, PolicyError)
    assert "needs the signature of a known operator" in str(error)
    assert len(desk.daemon.stores.registry.operators()) == 1


def test_of_one_decision_sent_twice_at_once_one_counts_and_the_other_was_used_before(desk):
    ann, candidate = add_operator(desk.daemon), add_candidate(desk.daemon)
    decisions, envelope = lingering(desk.daemon, approvals_required=2), signed(desk.daemon, ann, candidate)
    (error,) = at_once(*2 * [partial(decisions.decide, envelope)])
    assert isinstance(error, DecisionRefused), error
    assert error.refused.refusal is Refusal.REPLAYED
    assert desk.daemon.stores.audit.newest("approval.refused").body["refusal"] == "replayed"
    assert len(desk.daemon.stores.registry.approvals_of(candidate.id)) == 1


def test_of_two_operators_yeses_at_once_both_count(board, two):
    candidate = add_candidate(board.daemon)
    decisions = lingering(board.daemon, approvals_required=2)
    envelopes = [signed(board.daemon, person, candidate) for person in two]
    assert at_once(*(partial(decisions.decide, envelope) for envelope in envelopes)) == []
    assert board.serving == candidate.id
