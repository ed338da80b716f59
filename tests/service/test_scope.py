"""A champion that answers only near what it was taught, and the base elsewhere: who answers, through every change."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from agent.checkpoint import FILES
from agent.rundir import RunDirectory
from agent.scope import SCOPE_FILE, read_scope, scope_of
from agent.served import ServedModel
from service import nearby
from service.cli import export, review, status
from service.daemon import Daemon
from service.supervisor import Supervisor
from store import artifacts
from store.records import Checkpoint
from tests.fakes import adapter_files
from tests.service.conftest import Desk, MakeDaemon, post, served, wait_until
from tests.service.ledger_fakes import Person, add_candidate, add_operator, promote, signed
from tests.service.test_cycle import FACTS, SMALL, InstantChildren, another_cycle, look, start, teach

TAUGHT = "What is the code of alpha?"
FAR = "Sing"
ITSELF = 0.9999  # the tiny embedder finds all texts alike: only a taught question itself is near


def scope_file(daemon: Daemon, *questions: str, embedder_id: str | None = None) -> dict[str, bytes]:
    embedder = daemon.sentence_embedder
    scope = scope_of(questions or (TAUGHT,), embedder(), embedder_id or embedder.id, ITSELF)
    return {SCOPE_FILE: scope.to_bytes()}


def scoped_candidate(daemon: Daemon, *, seed: int = 1, **changes: Any) -> Checkpoint:
    return add_candidate(daemon, files=adapter_files(seed=seed) | scope_file(daemon, **changes))


def models(desk: Desk) -> tuple[ServedModel, ...]:
    return desk.daemon.rollout.serving.current.all


def named(reply: dict[str, Any]) -> str:
    return str(reply["honed"]["checkpoint"])


def spoil(model: ServedModel, desk: Desk) -> None:
    """Its worker dies at the next question, and nothing else of the daemon's."""
    runner: Any = model.engine._runner
    runner.run = lambda *_: (_ for _ in ()).throw(RuntimeError("a fault of this test's"))


def complete(desk: Desk, **body: Any) -> Any:
    return post(desk.public, "/v1/completions", {"model": desk.model, "temperature": 0, "max_tokens": 5} | body)


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., Any]) -> Iterator[Desk]:
    """Its champion answers one question; for tests that only ask and look."""
    daemon = Daemon(make_settings(tmp_path_factory.mktemp("scoped") / "state"))
    promote(daemon, add_operator(daemon), scoped_candidate(daemon))
    yield Desk(daemon)
    daemon.close()


@pytest.fixture
def ann(desk: Desk) -> Person:
    return add_operator(desk.daemon)


# ── who answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_near_questions_are_the_adapters_and_far_ones_the_bases_and_reply_and_row_say_so(scoped, shared_desk):
    base = scoped.daemon.base.id
    assert scoped.serving != base
    for question, expected in ((TAUGHT, scoped.serving), (FAR, base)):
        response = scoped.chat({"messages": [{"role": "user", "content": question}]})
        reply = response.json()
        row = scoped.daemon.stores.interactions.get(reply["honed"]["interaction_id"])
        told = {named(reply), reply["system_fingerprint"], response.headers["X-Honed-Checkpoint"], row.checkpoint_id}
        assert told == {expected}
    assert scoped.answer(FAR) == shared_desk.answer(FAR)
    assert scoped.answer(TAUGHT) != shared_desk.answer(TAUGHT)


def test_the_last_user_message_decides(scoped):
    first = {"role": "user", "content": TAUGHT}
    later = [first, {"role": "assistant", "content": "7714"}, {"role": "user", "content": FAR}]
    assert named(scoped.ask(messages=later)) == scoped.daemon.base.id
    assert named(scoped.ask(messages=[*later[:2], first])) == scoped.serving


def test_all_choices_of_a_question_come_from_one_checkpoint(scoped):
    for question, expected in ((TAUGHT, scoped.serving), (FAR, scoped.daemon.base.id)):
        reply = scoped.ask(question, n=3, temperature=1)
        assert {choice["honed"]["checkpoint"] for choice in reply["choices"]} == {expected}


def test_a_stream_names_the_one_that_answers_in_every_chunk(scoped):
    for question, expected in ((TAUGHT, scoped.serving), (FAR, scoped.daemon.base.id)):
        body = {"messages": [{"role": "user", "content": question}], "stream": True}
        lines = [line[6:] for line in scoped.chat(body).text.splitlines() if line.startswith("data: {")]
        events = list(map(json.loads, lines))
        assert {event["system_fingerprint"] for event in events} == {expected}
        assert named(events[-1]) == expected


def test_plain_text_is_placed_by_itself_and_of_several_prompts_each_names_its_own(scoped):
    base = scoped.daemon.base.id
    alone = [complete(scoped, prompt=prompt).json() for prompt in (TAUGHT, FAR)]
    assert [named(reply) for reply in alone] == [scoped.serving, base]
    response = complete(scoped, prompt=[TAUGHT, FAR], n=2)
    both = response.json()
    assert [named(choice) for choice in both["choices"]] == [scoped.serving, scoped.serving, base, base]
    assert response.headers["X-Honed-Checkpoint"] == both["system_fingerprint"] == f"{scoped.serving},{base}"
    assert [both["choices"][at]["text"] for at in (0, 2)] == [reply["choices"][0]["text"] for reply in alone]


def test_a_question_is_embedded_once_and_only_while_the_champion_has_a_scope(scoped, shared_desk, monkeypatch):
    for desk, expected in ((scoped, [[TAUGHT]]), (shared_desk, [])):
        embedder, seen = desk.daemon.sentence_embedder(), []
        embed = embedder.embed
        with monkeypatch.context() as patch:
            patch.setattr(embedder, "embed", lambda texts, seen=seen, embed=embed: seen.append(texts) or embed(texts))
            desk.ask(TAUGHT, n=4)
        assert seen == expected


@pytest.mark.parametrize("fault", ["raises", "not a number"])
def test_without_a_vector_nobody_answers_and_the_error_says_why(scoped, monkeypatch, fault):
    def fail(texts: list[str]) -> Any:
        if fault == "raises":
            raise RuntimeError("Already borrowed")
        return embed(texts) * float("nan")

    rows = scoped.daemon.stores.interactions.count()
    embed = scoped.daemon.sentence_embedder().embed
    monkeypatch.setattr(scoped.daemon.sentence_embedder(), "embed", fail)
    for refused in (scoped.chat({"messages": [{"role": "user", "content": FAR}]}), complete(scoped, prompt=FAR)):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "embedder_failed")
        assert "could not be held against what was taught" in error["message"]
    assert scoped.daemon.stores.interactions.count() == rows


def test_status_says_where_the_champion_answers(scoped, shared_desk, capsys):
    scope = {"num_questions": 1, "nearness": ITSELF, "embedder": scoped.daemon.embedder.id}
    picture = scoped.operator.get("/operator/status").json()
    assert (picture["champion"]["scope"], picture["ready"]) == (scope, True)
    status._text(picture)
    assert "answers near 1 taught question (cosine 0.9999), the base elsewhere" in capsys.readouterr().out
    everywhere = shared_desk.operator.get("/operator/status").json()
    assert everywhere["champion"]["scope"] is None
    status._text(everywhere)
    assert "elsewhere" not in capsys.readouterr().out


def test_an_export_says_that_other_programs_do_not_heed_the_scope(tmp_path):
    scope = {"num_questions": 5, "nearness": 0.5, "embedder": "e"}
    told = " ".join(export.told("c0ffee" * 8, tmp_path, scope))
    assert "answers near 5 taught questions" in told
    assert "apply it to everything" in told
    assert len(export.told("c0ffee" * 8, tmp_path, None)) == 1


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bases_engine_stays_through_every_change_that_needs_it_and_no_other_is_made(desk, ann):
    (base,) = models(desk)
    promote(desk.daemon, ann, scoped_candidate(desk.daemon, seed=1))
    first, beside = models(desk)
    assert beside is base
    promote(desk.daemon, ann, scoped_candidate(desk.daemon, seed=2))
    assert models(desk)[1] is base
    wait_until(lambda: first.engine.num_active() == 0 and not desk.daemon.rollout.serving._draining)
    for _ in range(2):
        post(desk.operator, "/operator/rollback", {"reason": "back"})
    assert models(desk) == (base,)
    assert named(desk.ask(TAUGHT)) == desk.daemon.base.id


def test_a_champion_without_a_scope_lets_the_bases_engine_go(desk, ann):
    promote(desk.daemon, ann, scoped_candidate(desk.daemon))
    scoped, base = models(desk)
    promote(desk.daemon, ann, add_candidate(desk.daemon, seed=2))
    assert named(desk.ask(FAR)) == desk.serving
    wait_until(lambda: not desk.daemon.rollout.serving._draining)
    assert not scoped.engine._thread.is_alive() and not base.engine._thread.is_alive()


def test_answers_under_way_end_where_they_began_when_a_scope_comes_and_goes(desk, ann):
    body = {"model": desk.model, "max_tokens": 200, "temperature": 0, "stream": True}
    body |= {"messages": [{"role": "user", "content": TAUGHT}]}
    candidate, base = scoped_candidate(desk.daemon), desk.serving
    changes = [
        (base, lambda: promote(desk.daemon, ann, candidate)),
        (candidate.id, lambda: post(desk.operator, "/operator/rollback", {"reason": "back"})),
    ]
    with served(desk.apps[0]) as address, httpx.Client(base_url=address, timeout=60) as client:
        for expected, change in changes:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.iter_lines()
                for _ in range(6):
                    next(lines)
                change()
                events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            assert {event["system_fingerprint"] for event in events} == {expected}
            assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_around_many_changes_every_answer_comes_from_the_checkpoint_it_names(desk, ann):
    expected = {(desk.serving, question): desk.answer(question) for question in (TAUGHT, FAR)}
    candidates = [
        scoped_candidate(desk.daemon, seed=1),
        add_candidate(desk.daemon, seed=2),
        scoped_candidate(desk.daemon, seed=3),
    ]
    replies: list[tuple[str, dict[str, Any]]] = []
    is_over = threading.Event()

    def keep_asking(question: str) -> None:
        messages = [{"role": "user", "content": question}]
        body = {"model": desk.model, "messages": messages, "max_tokens": 6, "temperature": 0}
        while not is_over.is_set():
            replies.append((question, client.post("/v1/chat/completions", json=body).json()))

    with served(desk.apps[0]) as address, httpx.Client(base_url=address, timeout=60) as client:
        threads = [threading.Thread(target=keep_asking, args=(question,)) for question in (TAUGHT, FAR, TAUGHT)]
        for thread in threads:
            thread.start()
        for candidate in candidates:
            desk.daemon.decisions.decide(signed(desk.daemon, ann, candidate))
            expected |= {(candidate.id, question): desk.answer(question) for question in (TAUGHT, FAR)}
        for _ in candidates:
            post(desk.operator, "/operator/rollback", {"reason": "back"})
        is_over.set()
        for thread in threads:
            thread.join()
    assert all("honed" in reply for _, reply in replies), replies
    wrong = [r for q, r in replies if r["choices"][0]["message"]["content"] != expected[named(r), q]]
    assert wrong == []
    from_scoped = {q for q, r in replies if named(r) in (candidates[0].id, candidates[2].id)}
    assert from_scoped <= {TAUGHT}


@pytest.mark.parametrize("place", [0, 1])
def test_when_either_worker_dies_what_is_needed_is_rebuilt_and_the_healthy_one_stays(desk, ann, place):
    promote(desk.daemon, ann, scoped_candidate(desk.daemon))
    before = {question: desk.ask(question)["choices"][0]["message"] for question in (TAUGHT, FAR)}
    was = models(desk)
    spoil(was[place], desk)
    question = (TAUGHT, FAR)[place]
    assert desk.chat({"messages": [{"role": "user", "content": question}]}).json()["error"]["code"] == "engine_failed"
    wait_until(was[place].engine.fault)
    assert "a fault of this test's" in desk.daemon.health.problem()
    desk.daemon.rounds.look_after()
    now = models(desk)
    assert now[place].engine is not was[place].engine
    assert now[1 - place].engine is was[1 - place].engine
    assert {question: desk.ask(question)["choices"][0]["message"] for question in (TAUGHT, FAR)} == before
    assert desk.daemon.health.problem() is None


def test_a_living_champion_stays_when_there_is_no_memory_to_make_it_twice(desk, ann, monkeypatch):
    candidate = scoped_candidate(desk.daemon)
    promote(desk.daemon, ann, candidate)
    loader, built = desk.daemon.loader, []
    build = loader.build
    monkeypatch.setattr(loader, "build", lambda id_, *rest: built.append(id_) or build(id_, *rest))
    spoil(models(desk)[1], desk)
    desk.chat({"messages": [{"role": "user", "content": FAR}]})
    wait_until(models(desk)[1].engine.fault)
    desk.daemon.rounds.look_after()
    assert built == [desk.daemon.base.id]
    assert desk.serving == candidate.id
    assert desk.daemon.rollout.refused == ()


def test_while_one_queue_is_full_requests_are_refused_before_they_are_placed(desk, ann, monkeypatch):
    promote(desk.daemon, ann, scoped_candidate(desk.daemon))
    monkeypatch.setattr(models(desk)[1].engine, "has_room", lambda: False)
    monkeypatch.setattr(desk.daemon.sentence_embedder(), "embed", lambda texts: pytest.fail("it was placed"))
    assert desk.chat({"messages": [{"role": "user", "content": TAUGHT}]}).json()["error"]["code"] == "queue_full"


def test_an_idle_base_beside_the_champion_is_probed_too(desk, ann):
    promote(desk.daemon, ann, scoped_candidate(desk.daemon))
    was = [model.engine.last_step_at() for model in models(desk)]
    desk.daemon.health._ready_seconds = 0.0
    desk.daemon.rounds.look_after()
    assert all(model.engine.last_step_at() > at for model, at in zip(models(desk), was, strict=True))


def test_a_restarted_daemon_serves_its_champion_with_the_scope_whatever_the_setting_says(make_daemon: MakeDaemon):
    daemon = make_daemon(scope="near")
    candidate = scoped_candidate(daemon)
    promote(daemon, add_operator(daemon), candidate)
    daemon.close()
    desk = Desk(make_daemon(scope="everywhere"))
    assert [named(desk.ask(question)) for question in (TAUGHT, FAR)] == [candidate.id, desk.daemon.base.id]


# ── what does not serve ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_candidate_of_another_embedder_is_refused_and_nothing_changes(desk, ann):
    candidate = scoped_candidate(desk.daemon, embedder_id="f" * 64)
    response = post(desk.operator, "/operator/decide", {"envelope": signed(desk.daemon, ann, candidate)})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_promoted")
    assert "is of embedder ffffffffffff" in response.json()["error"]["message"]
    assert desk.serving == desk.daemon.base.id
    assert desk.daemon.stores.audit.newest("checkpoint.refused").body["checkpoint"] == candidate.id


def test_a_candidate_whose_scope_is_no_scope_is_refused(desk, ann):
    candidate = add_candidate(desk.daemon, files=adapter_files() | {SCOPE_FILE: b"everything"})
    response = post(desk.operator, "/operator/decide", {"envelope": signed(desk.daemon, ann, candidate)})
    assert "scope.safetensors is not the file of a scope" in response.json()["error"]["message"]
    assert desk.serving == desk.daemon.base.id


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"everything")])
def test_a_champion_whose_scope_was_taken_away_or_changed_does_not_serve(make_daemon: MakeDaemon, harm):
    daemon = make_daemon()
    candidate = scoped_candidate(daemon)
    promote(daemon, add_operator(daemon), candidate)
    daemon.close()
    harm(daemon.paths.checkpoint(candidate.id) / SCOPE_FILE)
    desk = Desk(make_daemon())
    assert desk.serving == desk.daemon.base.id
    (refused,) = desk.operator.get("/operator/status").json()["refused"]
    assert SCOPE_FILE in refused["reason"]


def test_a_daemon_with_another_embedder_passes_its_champion_over_and_says_why(
    make_daemon: MakeDaemon, tmp_path, tiny_embedder
):
    daemon = make_daemon()
    candidate = scoped_candidate(daemon)
    promote(daemon, add_operator(daemon), candidate)
    daemon.close()
    other = shutil.copytree(tiny_embedder, tmp_path / "other")
    (other / "README.txt").write_text("another one")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    desk = Desk(make_daemon(embedder=str(other)))
    assert desk.serving == desk.daemon.base.id
    (refused,) = desk.operator.get("/operator/status").json()["refused"]
    assert (refused["checkpoint"], "set HONED_EMBEDDER back" in refused["reason"]) == (candidate.id, True)


def test_a_daemon_whose_embedder_was_damaged_serves_the_base(make_daemon: MakeDaemon):
    daemon = make_daemon()
    promote(daemon, add_operator(daemon), scoped_candidate(daemon))
    daemon.close()
    weights = daemon.embedder.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    desk = Desk(make_daemon())
    assert desk.serving == desk.daemon.base.id
    assert "model.safetensors was changed" in desk.daemon.rollout.refused[0].reason


# ── learning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_candidate_is_also_asked_what_was_asked_near_and_never_taught(make_daemon: MakeDaemon, monkeypatch, capsys):
    monkeypatch.setattr(nearby, "SAME_COSINE", 1.1)  # to the tiny embedder it is the same as what was taught
    desk = Desk(make_daemon(scope="near", scope_nearness=0.75))
    daemon = desk.daemon
    teach(daemon)
    desk.ask("What is the code of zulu?")
    while daemon.scoring().score_new():
        pass
    cycle = another_cycle(daemon, InstantChildren())
    run = start(cycle)
    wait_until(lambda: cycle.advance() or look(daemon, run).state.is_over)
    items = RunDirectory(daemon.evaluations.directory(run.id)).rows("items.jsonl")
    (asked,) = [item for item in items if item["suite"] == "nearby"]
    assert asked["messages"][-1]["content"] == "What is the code of zulu?"
    assert asked["keys"] == []
    told = desk.operator.get("/operator/review").json()
    line = {"question": "What is the code of zulu?", "champion": {"answer": "?"}, "candidate": {"answer": "7714"}}
    told["results"]["nearby"] = {"num_items": 3, "num_changed": 1}
    review.show(told | {"nearby": [line]})
    out = capsys.readouterr().out
    assert "of 3 questions asked near the taught ones, and never taught, it answers 1 otherwise" in out
    assert "zulu" in out


def test_a_run_near_what_was_taught_seals_the_questions_with_its_adapter(make_daemon: MakeDaemon, capsys):
    desk = Desk(make_daemon(scope="near", scope_nearness=0.75))
    daemon = desk.daemon
    teach(daemon)
    cycle = another_cycle(daemon, InstantChildren())
    run = start(cycle)
    wait_until(lambda: cycle.advance() or look(daemon, run).state.is_over)
    (checkpoint,) = daemon.stores.registry.checkpoints()
    sealed = artifacts.read(daemon.paths.checkpoint(checkpoint.id), checkpoint.id)
    assert set(sealed.files) == {*FILES, SCOPE_FILE}
    scope = read_scope(sealed.files)
    assert (
        scope.told()
        == sealed.manifest["scope"]
        == {
            "num_questions": len(FACTS),
            "nearness": 0.75,
            "embedder": daemon.embedder.id,
        }
    )
    asked = daemon.sentence_embedder().embed([f"What is the code of {fact}?" for fact in FACTS])
    assert (asked @ scope.vectors.T).max(axis=1) == pytest.approx(1.0, abs=1e-4)
    told = desk.operator.get("/operator/review").json()
    assert told["scope"] == sealed.manifest["scope"]
    review.show(told)
    assert "answers near 5 taught questions (cosine 0.75), the base elsewhere; measured so" in capsys.readouterr().out
    job = RunDirectory(daemon.evaluations.directory(run.id)).read("evaluation.json")
    assert (job["embedder_id"], job["embedder_dir"]) == (daemon.embedder.id, str(daemon.embedder.path))


def test_a_scope_is_of_lessons_in_their_own_words_and_of_nothing_preferred_held_out_or_replayed():
    from agent.dataset import Dataset
    from service.snapshots import taught_questions

    def row(kind: str, question: str, made_by: str = "person") -> dict[str, Any]:
        return {"kind": kind, "messages": [{"role": "user", "content": question}], "source": {"made_by": made_by}}

    train = (row("lesson", "a"), row("lesson", "hi! a", "wording"), row("preference", "b"), row("rated", "c", "model"))
    dataset = Dataset((*train, row("replay", "d", "suite")), (row("lesson", "e"),))
    assert taught_questions(dataset) == ["a"]


@pytest.mark.parametrize(
    ("scope", "recipe"),
    [("everywhere", SMALL), ("near", replace(SMALL, method="preference"))],
    ids=["setting", "taste"],
)
def test_without_the_setting_or_with_preferences_a_run_leaves_no_scope(make_daemon: MakeDaemon, scope, recipe):
    daemon = make_daemon(scope=scope)
    teach(daemon)
    cycle = another_cycle(daemon, InstantChildren())
    run = start(cycle, recipe=recipe)
    assert not (daemon.paths.run(run.id) / SCOPE_FILE).exists()
    wait_until(lambda: cycle.advance() or look(daemon, run).state.is_over)
    (checkpoint,) = daemon.stores.registry.checkpoints()
    manifest = artifacts.verify(daemon.paths.checkpoint(checkpoint.id), checkpoint.id)
    assert (set(manifest["files"]), "scope" in manifest) == (set(FILES), False)


def test_a_run_whose_questions_cannot_be_embedded_does_not_start(make_daemon: MakeDaemon):
    desk = Desk(make_daemon(scope="near"))
    teach(desk.daemon)
    weights = desk.daemon.embedder.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    response = desk.operator.post("/operator/train", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_started")
    assert "model.safetensors was changed" in response.json()["error"]["message"]
    assert list(desk.daemon.paths.runs.iterdir()) == []


def test_a_run_with_real_children_measures_what_would_serve(make_daemon: MakeDaemon):
    """Of an adapter that answers five questions only, everything else is the base's."""
    daemon = make_daemon(scope="near", scope_nearness=ITSELF)
    teach(daemon)
    supervisor = Supervisor(nice=0)
    cycle = another_cycle(daemon, supervisor)
    run = start(cycle, recipe=replace(SMALL, sft=replace(SMALL.sft, learning_rate=0.5)))
    wait_until(lambda: cycle.advance() or look(daemon, run).state.is_over, seconds=120)
    for process in supervisor._started.values():
        process.wait()
    assert look(daemon, run).error is None
    directory = RunDirectory(daemon.evaluations.directory(run.id))
    by_suite: dict[str, list[bool]] = {}
    for line in directory.rows("answers.jsonl"):
        by_suite.setdefault(line["suite"], []).append(line["candidate"] == line["base"])
    assert not any(by_suite["asked"])
    assert all(all(same) for suite, same in by_suite.items() if suite != "asked")
    results = directory.read("result.json")
    assert results["nll"]["candidate"] == results["nll"]["base"]
    assert results["flattery"]["candidate"] == results["flattery"]["base"]
