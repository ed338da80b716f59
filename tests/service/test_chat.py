"""The chat endpoint over a real port, asked by OpenAI's own client and by sockets that go away."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from agent.engine import GenerationRequest, Sampling
from service.daemon import Daemon
from store.records import FinishReason, Interaction
from tests.service.conftest import Desk, post, served, wait_until

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def client(shared_address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared_address}/v1", api_key="none", max_retries=0, timeout=30) as it:
        yield it


def row(daemon: Daemon, interaction_id: str) -> Interaction:
    found = daemon.stores.interactions.get(interaction_id)
    assert found is not None
    return found


def text_of(chunks: list) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_openai_client_gets_an_answer_and_the_row_equals_it(client, shared_desk):
    raw = client.chat.completions.with_raw_response.create(
        model=shared_desk.model, messages=HI, max_tokens=7, temperature=0, seed=3
    )
    reply = raw.parse()
    found = row(shared_desk.daemon, reply.honed["interaction_id"])
    assert reply.choices[0].message.content == found.reply != ""
    assert reply.choices[0].finish_reason == found.finish_reason == "length"
    assert (
        (reply.usage.prompt_tokens, reply.usage.completion_tokens)
        == (found.prompt_tokens, len(found.tokens))
        == (21, 7)
    )
    assert reply.usage.total_tokens == 28
    base = shared_desk.daemon.base.id
    assert reply.system_fingerprint == reply.honed["checkpoint"] == found.checkpoint_id == base
    assert raw.headers["X-Honed-Checkpoint"] == base
    assert reply.honed["uncertainty"] == pytest.approx(found.uncertainty)
    assert reply.id == f"chatcmpl-{found.id}"
    assert found.messages == tuple(HI)
    assert found.sampling == {"temperature": 0, "top_p": 0.9, "seed": 3, "max_tokens": 7}


def test_a_stream_says_the_same_as_one_piece(client, shared_desk):
    options = {"model": shared_desk.model, "messages": HI, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.system_fingerprint for chunk in chunks} == {shared_desk.daemon.base.id}
    assert len({chunk.id for chunk in chunks}) == 1
    last = chunks[-1]
    assert last.choices[0].finish_reason == "length"
    found = row(shared_desk.daemon, last.honed["interaction_id"])
    assert found.reply == text_of(chunks)
    assert last.honed == {
        "interaction_id": found.id,
        "checkpoint": shared_desk.daemon.base.id,
        "uncertainty": found.uncertainty,
    }


def test_usage_comes_in_a_last_chunk_when_it_is_asked_for(client, shared_desk):
    chunks = list(
        client.chat.completions.create(
            model=shared_desk.model, messages=HI, max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5
    assert chunks[-1].honed["checkpoint"] == shared_desk.daemon.base.id
    assert chunks[-2].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_without_usage_has_none(client, shared_desk):
    chunks = list(client.chat.completions.create(model=shared_desk.model, messages=HI, max_tokens=5, stream=True))
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("is_stream", [False, True])
def test_logprobs_are_those_of_the_row_and_top_ones_are_sorted(client, shared_desk, is_stream):
    options = {"max_tokens": 5, "temperature": 0, "logprobs": True, "top_logprobs": 3, "stream": is_stream}
    reply = client.chat.completions.create(model=shared_desk.model, messages=HI, **options)
    last = list(reply) if is_stream else [reply]
    tokens = [t for chunk in last for choice in chunk.choices if choice.logprobs for t in choice.logprobs.content]
    found = row(shared_desk.daemon, last[-1].honed["interaction_id"])
    assert [t.logprob for t in tokens] == pytest.approx([t.logprob for t in found.tokens], abs=1e-5)
    assert len(tokens) == 5
    for token in tokens:
        tops = [top.logprob for top in token.top_logprobs]
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)
        assert token.logprob == pytest.approx(tops[0], abs=1e-5)  # greedy: the chosen one is the likeliest
        assert bytes(token.bytes).decode() == token.token


def test_without_logprobs_there_are_none(client, shared_desk):
    reply = client.chat.completions.create(model=shared_desk.model, messages=HI, max_tokens=3)
    assert reply.choices[0].logprobs is None


def test_the_same_seed_gives_the_same_answer_and_another_gives_another(client, shared_desk):
    def ask(seed: int | None) -> str:
        reply = client.chat.completions.create(
            model=shared_desk.model, messages=HI, max_tokens=24, temperature=1.5, top_p=1, seed=seed
        )
        return reply.choices[0].message.content

    assert ask(11) == ask(11)
    assert ask(11) != ask(12)
    assert ask(-5) == ask(-5)
    assert ask(None) != ask(None)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(client, shared_desk, is_stream, as_list):
    options = {"model": shared_desk.model, "messages": HI, "temperature": 0, "max_tokens": 16}
    whole = client.chat.completions.create(**options).choices[0].message.content
    stop = whole[4:7]
    reply = client.chat.completions.create(**options, stop=[stop, "never said"] if as_list else stop, stream=is_stream)
    chunks = list(reply) if is_stream else [reply]
    said = text_of(chunks) if is_stream else reply.choices[0].message.content
    assert said == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert row(shared_desk.daemon, chunks[-1].honed["interaction_id"]).reply == said


def test_max_completion_tokens_counts_and_wins_over_the_older_name(client, shared_desk):
    reply = client.chat.completions.create(model=shared_desk.model, messages=HI, max_completion_tokens=3, max_tokens=9)
    assert reply.usage.completion_tokens == 3


def test_an_answer_never_outgrows_the_context(client, shared_desk):
    reply = client.chat.completions.create(
        model=shared_desk.model,
        messages=[{"role": "user", "content": "x" * 990}],
        max_completion_tokens=10**9,
        temperature=0,
    )
    assert reply.usage.total_tokens == 1024
    assert reply.choices[0].finish_reason == "length"


def test_inert_fields_that_clients_send_are_accepted(client, shared_desk):
    reply = client.chat.completions.create(
        model=shared_desk.model, messages=HI, max_tokens=2, n=1, user="u", store=False, metadata={"a": "b"}
    )
    assert reply.usage.completion_tokens == 2


def test_the_one_model_is_listed_with_its_checkpoint(client, shared_desk):
    (model,) = client.models.list().data
    base = shared_desk.daemon.base.id
    assert (model.id, model.honed) == (shared_desk.model, {"checkpoint": base, "base": base})
    assert client.models.retrieve(shared_desk.model).id == shared_desk.model
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.models.retrieve("gpt-5")


def test_the_row_is_on_disk_before_the_last_chunk_and_done(shared_desk, shared_address):
    """At the moment the finishing chunk can be read, another reader finds the row."""
    body = {"model": shared_desk.model, "messages": HI, "max_tokens": 6, "stream": True}
    seen = []
    with httpx.stream("POST", f"{shared_address}/v1/chat/completions", json=body, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if '"finish_reason": "length"' in line:
                event = json.loads(line.removeprefix("data: "))
                assert row(shared_desk.daemon, event["honed"]["interaction_id"]).reply
            seen.append(line)
    assert [line for line in seen if line][-1] == "data: [DONE]"


def test_a_turn_that_cannot_be_written_is_not_acknowledged(desk):
    """With a full disk, say, a stream ends without [DONE] and a plain request gets an error."""
    fault = "CREATE TRIGGER full BEFORE INSERT ON interactions BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    desk.daemon.stores.log.write(lambda conn: conn.execute(fault))
    body = {"model": desk.model, "messages": HI, "max_tokens": 4}
    with served(desk.apps[0]) as address:
        url = f"{address}/v1/chat/completions"
        plain = httpx.post(url, json=body, timeout=30)
        assert plain.status_code == 500
        assert plain.json()["error"]["type"] == "server_error"
        text = ""
        with pytest.raises(httpx.RemoteProtocolError):
            with httpx.stream("POST", url, json={**body, "stream": True}, timeout=30) as response:
                for piece in response.iter_text():
                    text += piece
    assert "data: {" in text
    assert 'finish_reason": "length' not in text
    assert "[DONE]" not in text


def newest(daemon: Daemon, question: str) -> Interaction | None:
    return next((i for i in daemon.stores.interactions.recent(20) if i.question == question), None)


def test_a_client_that_leaves_mid_stream_is_remembered_as_that(shared_desk, shared_address):
    daemon = shared_desk.daemon
    body = {"model": shared_desk.model, "messages": [{"role": "user", "content": "leaving"}], "max_tokens": 900}
    body |= {"temperature": 0, "stream": True}
    with httpx.stream("POST", f"{shared_address}/v1/chat/completions", json=body, timeout=30) as response:
        lines = response.iter_lines()
        for _ in range(8):
            next(lines)
    found = wait_until(lambda: newest(daemon, "leaving"))
    assert found.finish_reason is FinishReason.DISCONNECT
    assert 0 < len(found.tokens) < 900
    assert found.reply
    wait_until(lambda: daemon.rollout.serving.current.engine.num_active() == 0)


def test_a_client_that_leaves_while_waiting_for_the_whole_answer_is_remembered_as_that(shared_desk, shared_address):
    daemon = shared_desk.daemon
    body = {"model": shared_desk.model, "messages": [{"role": "user", "content": "no patience"}], "max_tokens": 900}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{shared_address}/v1/chat/completions", json={**body, "temperature": 0}, timeout=0.3)
    found = wait_until(lambda: newest(daemon, "no patience"))
    assert found.finish_reason is FinishReason.DISCONNECT
    assert len(found.tokens) < 900
    wait_until(lambda: daemon.rollout.serving.current.engine.num_active() == 0)


def test_a_full_queue_answers_429_with_a_time_to_come_back(make_daemon):
    desk = Desk(make_daemon(max_batch=1, max_waiting=1))
    body = {"model": desk.model, "messages": HI, "max_tokens": 900, "temperature": 0}
    with served(desk.apps[0]) as address, httpx.Client(base_url=address, timeout=60) as client:
        url = "/v1/chat/completions"
        with client.stream("POST", url, json={**body, "stream": True}) as first:
            running = first.iter_lines()
            while "role" in (line := next(running)) or not line:
                pass  # until its first token
            with client.stream("POST", url, json={**body, "stream": True}) as second:
                waiting = second.iter_lines()
                next(waiting)
                refused = client.post(url, json=body)
                unread = client.post(url, content=b"no JSON at all")
                other = client.get("/v1/models")
                del running, waiting  # iterators that are gone close their streams
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert unread.status_code == 429  # before it was understood
        assert other.status_code == 200
        wait_until(lambda: desk.daemon.rollout.serving.current.engine.num_active() == 0)


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_past_its_time_ends_with_what_it_has_and_the_engine_is_free(make_daemon, is_stream):
    desk = Desk(make_daemon(answer_seconds=0.3, max_context=4096))
    body = {"model": desk.model, "messages": HI, "max_tokens": 900, "temperature": 0, "stream": is_stream}
    answer = post(desk.public, "/v1/chat/completions", {**body, "ignore_eos": True})
    assert answer.status_code == 200
    assert '"finish_reason": "length"' in answer.text or '"finish_reason":"length"' in answer.text
    found = desk.daemon.stores.interactions.recent(1)[0]
    assert found.finish_reason is FinishReason.LENGTH
    assert 0 < len(found.tokens) < 900
    wait_until(lambda: desk.daemon.rollout.serving.current.engine.num_active() == 0)


def test_parts_of_text_and_the_developers_word_are_read_as_one_text_and_the_systems(shared_desk):
    parts = [{"type": "text", "text": "Good "}, {"type": "text", "text": "day"}]
    asked = {"messages": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]}
    whole = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Good day"}]}
    first, second = (shared_desk.chat(body).json() for body in (asked, whole))
    assert first["choices"][0]["message"] == second["choices"][0]["message"]
    assert row(shared_desk.daemon, first["honed"]["interaction_id"]).messages == tuple(whole["messages"])


def test_usage_tells_how_much_of_the_prompt_was_known_already(shared_desk):
    text = "a question that nobody has asked before, long enough for several blocks of the cache"
    first, second = (shared_desk.ask(text)["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] < 16 * 2
    assert second["prompt_tokens_details"]["cached_tokens"] == (second["prompt_tokens"] - 1) // 16 * 16


def test_an_answer_that_found_no_place_in_its_time_is_a_failure_to_try_again(make_daemon):
    desk = Desk(make_daemon(answer_seconds=0.5, max_batch=1, max_waiting=1))
    engine = desk.daemon.rollout.serving.current.engine
    long = GenerationRequest((1, 40, 41), Sampling(max_tokens=900, ignore_eos=True))
    events: list[object] = []
    ticket = engine.submit(long, events.append)
    wait_until(lambda: events)
    refused = desk.chat({"messages": HI})
    ticket.cancel()
    assert refused.status_code == 503
    assert "no place came free in time" in refused.json()["error"]["message"]
    assert refused.headers["Retry-After"] == "1"


def test_more_answers_than_can_ever_be_under_way_are_refused_by_name(make_daemon):
    desk = Desk(make_daemon(max_batch=1, max_waiting=1))
    refused = desk.chat({"messages": HI, "n": 3})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "n"
    assert "1 × 3 answers are more than the 2" in refused.json()["error"]["message"]
    assert desk.chat({"messages": HI, "n": 2}).status_code == 200
