"""The embedded engine on the tiny Llama: what it answers, how requests end, and what a fault does."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent.engine import (
    EngineBusy,
    EngineClosed,
    Event,
    Finished,
    GenerationRequest,
    Sampling,
    Token,
    complete,
    stream,
)
from agent.engines.embedded import EmbeddedEngine
from agent.engines.reference import ReferenceRunner
from agent.engines.scheduler import Budget
from agent.model import merge_adapter
from agent.tokenizer import Tokenizer
from store.records import FinishReason
from tests.fakes import adapter_files

Prompt = Callable[[str], tuple[int, ...]]
QUESTIONS = ("hi", "What is the capital of France?", "a", "Tell me a very long story about boats. " * 3)
LONG = Sampling(max_tokens=200)


class Listening:
    """Remembers events; can be made to fail at one of them, and waited for."""

    def __init__(self, *, fails_at: int | None = None, holds: threading.Event | None = None) -> None:
        self.events: list[Event] = []
        self._fails_at = fails_at
        self._holds = holds
        self._ended = threading.Event()
        self.began = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.began.set()
        if isinstance(event, Finished):
            self._ended.set()
        if self._holds is not None:
            self._holds.wait(10)
        if self._fails_at is not None and len(self.events) > self._fails_at:
            raise ConnectionError("the listener is gone")

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if isinstance(event, Token)]

    @property
    def ends(self) -> list[Finished]:
        return [event for event in self.events if isinstance(event, Finished)]

    def end(self) -> Finished:
        assert self._ended.wait(10), "no end was told"
        return self.ends[0]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.005)


def request(prompt: Prompt, question: str = "hi", **sampling: Any) -> GenerationRequest:
    return GenerationRequest(prompt(question), Sampling(**({"max_tokens": 12} | sampling)))


@contextmanager
def made(model: Any, tokenizer: Tokenizer, **options: Any) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(ReferenceRunner(model), tokenizer, **options)
    try:
        yield engine
    finally:
        engine.close(drain_seconds=0)


@contextmanager
def held(engine: EmbeddedEngine, prompt: Prompt) -> Iterator[Listening]:
    """The worker stands still inside one request's first token as long as the block lasts."""
    gate = threading.Event()
    listening = Listening(holds=gate)
    engine.submit(request(prompt, "hold"), listening)
    assert listening.began.wait(10)
    try:
        yield listening
    finally:
        gate.set()


def broken(base: PreTrainedModel) -> PreTrainedModel:
    """The base with a NaN in its weights."""
    model = merge_adapter(base, adapter_files())
    model.get_parameter("model.norm.weight").data[3] = float("nan")
    return model


# ── what it answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_greedy_answers_are_those_of_transformers_generate(
    base: PreTrainedModel, engine: EmbeddedEngine, prompt: Prompt
) -> None:
    for question in QUESTIONS:
        ids = prompt(question)
        theirs = base.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20, pad_token_id=2)[0, len(ids) :]
        _, tokens, _ = complete(engine, request(prompt, question, max_tokens=20))
        assert [token.id for token in tokens] == [token for token in theirs.tolist() if token != 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_requests_together_give_the_same_tokens_as_each_alone(
    engine: EmbeddedEngine, prompt: Prompt, temperature: float
) -> None:
    def asked(number: int) -> GenerationRequest:
        lengths = (15, 4, 9, 12, 7, 11)
        return request(prompt, QUESTIONS[number % 4], max_tokens=lengths[number], temperature=temperature, seed=number)

    alone = [[token.id for token in complete(engine, asked(number))[1]] for number in range(6)]
    together = [Listening() for _ in range(6)]
    for number, listening in enumerate(together):  # six for a batch of four: they also join and leave on the way
        engine.submit(asked(number), listening)
    assert [listening.end().reason for listening in together] == [FinishReason.LENGTH] * 6
    assert [listening.ids for listening in together] == alone


def test_a_request_that_joins_late_disturbs_nobody(engine: EmbeddedEngine, prompt: Prompt) -> None:
    alone = [[token.id for token in complete(engine, request(prompt, q, max_tokens=40))[1]] for q in QUESTIONS[:2]]
    first, second = Listening(), Listening()
    engine.submit(request(prompt, QUESTIONS[0], max_tokens=40), first)
    wait_until(lambda: len(first.ids) >= 5)
    engine.submit(request(prompt, QUESTIONS[1], max_tokens=40), second)
    first.end()
    second.end()
    assert [first.ids, second.ids] == alone


def test_the_shown_text_is_the_tokens_text(engine: EmbeddedEngine, tokenizer: Tokenizer, prompt: Prompt) -> None:
    text, tokens, _ = complete(engine, request(prompt, max_tokens=30))
    assert text == tokenizer.text([token.id for token in tokens])
    assert [token.piece for token in tokens] == [tokenizer.piece(token.id) for token in tokens]


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(engine: EmbeddedEngine, prompt: Prompt) -> None:
    texts = [complete(engine, request(prompt, temperature=1.0, seed=seed))[0] for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_answers_vary(engine: EmbeddedEngine, prompt: Prompt) -> None:
    assert len({complete(engine, request(prompt, temperature=1.5))[0] for _ in range(4)}) > 1


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.3, "top_p": 0.5, "seed": 1}])
def test_logprob_and_entropy_are_of_the_unprocessed_distribution(
    base: PreTrainedModel, engine: EmbeddedEngine, prompt: Prompt, sampling: dict[str, Any]
) -> None:
    _, tokens, _ = complete(engine, request(prompt, max_tokens=6, **sampling))
    ids = [*prompt("hi"), *(token.id for token in tokens)]
    with torch.inference_mode():
        logprobs = torch.log_softmax(base(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
    for number, token in enumerate(tokens):
        expected = logprobs[len(ids) - len(tokens) - 1 + number]
        assert token.logprob == pytest.approx(float(expected[token.id]), abs=1e-3)
        assert token.entropy == pytest.approx(float(-(expected.exp() * expected).sum()), abs=1e-3)
        assert 0.0 <= token.entropy <= math.log(259)


def test_alternatives_are_the_likeliest_tokens_best_first(engine: EmbeddedEngine, prompt: Prompt) -> None:
    _, tokens, _ = complete(engine, request(prompt, max_tokens=4, top_logprobs=3))
    for token in tokens:
        assert len(token.top) == 3
        assert (token.top[0].token_id, token.top[0].logprob) == (token.id, token.logprob)
        assert token.top[0].logprob >= token.top[1].logprob >= token.top[2].logprob
    assert complete(engine, request(prompt, max_tokens=1))[1][0].top == ()


# ── how answers end ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_max_tokens_ends_an_answer_with_reason_length(engine: EmbeddedEngine, prompt: Prompt) -> None:
    _, tokens, end = complete(engine, request(prompt, max_tokens=7))
    assert (len(tokens), end.reason, end.error) == (7, FinishReason.LENGTH, None)


def test_the_end_of_the_context_ends_an_answer_with_reason_length(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    ids = prompt("hi")
    with made(base, tokenizer, max_context=len(ids) + 5) as engine:
        _, tokens, end = complete(engine, GenerationRequest(ids, LONG))
    assert (len(tokens), end.reason) == (5, FinishReason.LENGTH)


def test_a_stop_string_over_several_tokens_ends_an_answer_and_is_not_shown(
    engine: EmbeddedEngine, prompt: Prompt
) -> None:
    whole, _, _ = complete(engine, request(prompt, max_tokens=20))
    stop = whole[6:9]
    text, tokens, end = complete(engine, request(prompt, max_tokens=20, stop=(stop, "never said")))
    assert text == whole[: whole.index(stop)]
    assert end.reason is FinishReason.STOP
    assert len(tokens) == whole.index(stop) + len(stop)  # one token a character here


def test_the_end_token_ends_an_answer_and_is_not_among_its_tokens(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt, engine: EmbeddedEngine
) -> None:
    ids = [token.id for token in complete(engine, request(prompt))[1]]
    at = next(number for number in range(3, len(ids)) if ids[number] not in ids[:number])
    model = merge_adapter(base, adapter_files(scale=0.0))
    head = model.get_parameter("lm_head.weight").data
    head[[2, ids[at]]] = head[[ids[at], 2]]  # where that token stood, the end stands now
    with made(model, tokenizer) as ending:
        text, tokens, end = complete(ending, request(prompt))
    assert [token.id for token in tokens] == ids[:at]
    assert text == tokenizer.text(ids[:at])
    assert end == Finished(FinishReason.STOP)


def test_a_cancelled_answer_ends_soon_with_reason_disconnect(engine: EmbeddedEngine, prompt: Prompt) -> None:
    listening = Listening()
    ticket = engine.submit(GenerationRequest(prompt("hi"), LONG), listening)
    wait_until(lambda: len(listening.ids) >= 2)
    ticket.cancel()
    assert listening.end().reason is FinishReason.DISCONNECT
    assert len(listening.ids) < 200
    wait_until(lambda: engine.num_active() == 0)


def test_a_request_cancelled_in_the_queue_never_begins(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    with made(base, tokenizer, max_batch=1) as engine:
        waiting = Listening()
        with held(engine, prompt):
            engine.submit(request(prompt), waiting).cancel()
        assert waiting.end().reason is FinishReason.DISCONNECT
        assert waiting.ids == []


def test_cancelling_one_leaves_the_other_as_it_was(engine: EmbeddedEngine, prompt: Prompt) -> None:
    alone = [token.id for token in complete(engine, request(prompt, "a", max_tokens=60))[1]]
    gone, stays = Listening(), Listening()
    ticket = engine.submit(GenerationRequest(prompt(QUESTIONS[3]), LONG), gone)
    engine.submit(request(prompt, "a", max_tokens=60), stays)
    wait_until(lambda: len(stays.ids) >= 3)
    ticket.cancel()
    stays.end()
    assert stays.ids == alone


def test_leaving_a_stream_early_cancels_its_request(engine: EmbeddedEngine, prompt: Prompt) -> None:
    events = stream(engine, GenerationRequest(prompt("hi"), LONG))
    next(events)
    events.close()
    wait_until(lambda: engine.num_active() == 0)


def test_a_full_queue_refuses_with_its_size_and_takes_requests_again_later(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    with made(base, tokenizer, max_batch=1, max_waiting=2) as engine:
        queued = [Listening(), Listening()]
        with held(engine, prompt):
            for listening in queued:
                engine.submit(request(prompt), listening)
            assert engine.num_active() == 3
            with pytest.raises(EngineBusy, match="2 requests are waiting already; try again shortly"):
                engine.submit(request(prompt), Listening())
            assert engine.num_active() == 3
        assert [listening.end().reason for listening in queued] == [FinishReason.LENGTH] * 2
        assert complete(engine, request(prompt))[2].reason is FinishReason.LENGTH


def test_who_leaves_while_waiting_is_told_at_once_and_keeps_no_place(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    with made(base, tokenizer, max_batch=1, max_waiting=1) as engine:
        running, waiting, next_one = Listening(), Listening(), Listening()
        under_way = engine.submit(GenerationRequest(prompt("hi"), LONG), running)
        wait_until(lambda: running.ids)
        left = engine.submit(request(prompt), waiting)
        assert not engine.has_room()
        left.cancel()
        assert engine.has_room()
        engine.submit(request(prompt), next_one)
        assert waiting.end().reason is FinishReason.DISCONNECT
        under_way.cancel()
        assert next_one.end().reason is FinishReason.LENGTH


def test_who_leaves_while_waiting_is_kept_no_longer_than_a_step_however_many_come_and_go(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    with made(base, tokenizer, max_batch=1, max_waiting=2) as engine:
        waiting: list[int] = []
        gone = [Listening() for _ in range(20)]
        left = iter(gone)

        def running(event: Event) -> None:
            if isinstance(event, Token):
                waiting.append(engine.stats().num_waiting)
                engine.submit(request(prompt), next(left)).cancel()

        engine.submit(request(prompt, max_tokens=20, ignore_eos=True), running)
        assert [listening.end().reason for listening in gone] == [FinishReason.DISCONNECT] * 20
        assert waiting == [0] * 20
        wait_until(lambda: engine.num_active() == 0)
        assert engine.stats().num_waiting == 0


def test_closing_lets_what_was_begun_and_what_waits_finish(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    engine = EmbeddedEngine(ReferenceRunner(base), tokenizer, max_batch=2)
    listening = [Listening() for _ in range(5)]
    for one in listening:
        engine.submit(request(prompt), one)
    assert engine.close(drain_seconds=20) == 0
    assert [one.end().reason for one in listening] == [FinishReason.LENGTH] * 5
    assert engine.num_active() == 0


def test_closing_at_once_cuts_and_tells_every_request(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    engine = EmbeddedEngine(ReferenceRunner(base), tokenizer, max_batch=1)
    running, waiting = Listening(), Listening()
    engine.submit(GenerationRequest(prompt("hi"), LONG), running)
    engine.submit(GenerationRequest(prompt("hi"), LONG), waiting)
    assert running.began.wait(10)
    assert engine.close(drain_seconds=0) == 2
    for listening in (running, waiting):
        assert listening.end().reason is FinishReason.ERROR
        assert "send the request again" in str(listening.end().error)
    assert engine.fault() is None


def test_a_closed_engine_takes_no_more_requests_and_closes_twice(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    engine = EmbeddedEngine(ReferenceRunner(base), tokenizer)
    assert engine.close(drain_seconds=1) == 0
    with pytest.raises(EngineClosed, match="being replaced; send the request again"):
        engine.submit(request(prompt), Listening())
    assert engine.close(drain_seconds=1) == 0


def test_the_time_of_the_newest_step_is_told(base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt) -> None:
    times = iter(range(100))
    with made(base, tokenizer, clock=lambda: float(next(times))) as engine:
        assert engine.last_step_at() is None
        complete(engine, request(prompt, max_tokens=3))
        assert engine.last_step_at() == 2.0


def test_steps_that_choose_no_token_are_told_too(base: PreTrainedModel, tokenizer: Tokenizer) -> None:
    times = iter(range(100))
    with made(base, tokenizer, clock=lambda: float(next(times)), budget=Budget(idle=16, busy=16)) as engine:
        complete(engine, GenerationRequest((40,) * 30, Sampling(max_tokens=0), prompt_logprobs=0))
        assert engine.last_step_at() == 1.0
        complete(engine, GenerationRequest((41,) * 64, Sampling(max_tokens=1)))
        assert engine.last_step_at() == 5.0


class Told(ReferenceRunner):
    """Remembers how many threads it was told to use, and lets somebody know."""

    def __init__(self, model: Any, hears: Callable[[int], None]) -> None:
        super().__init__(model)
        self.counts: list[int] = []
        self._hears = hears

    def use_threads(self, count: int) -> None:
        self.counts.append(count)
        self._hears(count)


def test_each_new_number_of_threads_is_told_once_also_one_that_comes_while_another_is_told(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    runner = Told(base, lambda count: engine.use_threads(2) if count == 1 else None)
    engine = EmbeddedEngine(runner, tokenizer)
    for count in (1, 2, 2, 3):
        engine.use_threads(count)
        complete(engine, request(prompt, max_tokens=5))
    engine.close(drain_seconds=0)
    assert runner.counts == [1, 2, 3]


# ── what a fault does ────────────────────────────────────────────────────────────────────────────────────────────────


def test_nan_logits_end_every_request_with_an_error_and_the_engine_tells_its_fault(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    with made(broken(base), tokenizer) as engine:
        listening = Listening()
        engine.submit(request(prompt), listening)
        assert listening.end().reason is FinishReason.ERROR
        assert "NaN or infinite logits" in str(listening.end().error)
        assert listening.ids == []
        assert engine.fault() == listening.end().error
        with pytest.raises(EngineClosed, match="NaN or infinite logits"):
            engine.submit(request(prompt), Listening())


@pytest.mark.parametrize("fails_at", [0, 3, 11, 12])
def test_a_listener_that_fails_ends_all_requests_once_and_is_told_by_fault(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt, fails_at: int
) -> None:
    with made(base, tokenizer, max_batch=3) as engine:
        failing = Listening(fails_at=fails_at)
        others = [Listening() for _ in range(4)]
        with held(engine, prompt) as first:
            engine.submit(request(prompt), others[0])
            engine.submit(request(prompt), failing)
            for listening in others[1:]:
                engine.submit(GenerationRequest(prompt("hi"), LONG), listening)
        for listening in (first, *others, failing):
            listening.end()
        wait_until(lambda: engine.fault() is not None)
        assert "ConnectionError: the listener is gone" in str(engine.fault())
        wait_until(lambda: engine.num_active() == 0)
        assert [len(listening.ends) for listening in (first, *others, failing)] == [1] * 6
        assert [listening.end().reason for listening in others[1:]] == [FinishReason.ERROR] * 3
        assert all(listening.end().error == engine.fault() for listening in others[1:])


def test_what_no_model_could_answer_is_refused_at_once_and_hurts_nobody(
    base: PreTrainedModel, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    with made(base, tokenizer, max_context=64) as engine:
        impossible = {
            "token 5000 is outside this model's vocabulary of 259": GenerationRequest((1, 5000), LONG),
            "token -1 is outside": GenerationRequest((1, -1), LONG),
            "a prompt of 0 tokens leaves no room in a context of 64": GenerationRequest((), LONG),
            "a prompt of 64 tokens leaves no room": GenerationRequest((1,) * 64, LONG),
            "token 259 is outside": GenerationRequest((1,), Sampling(logit_bias=((259, 1.0),))),
            "max_tokens 0 asks for nothing": GenerationRequest((1,), Sampling(max_tokens=0)),
        }
        for message, asked in impossible.items():
            with pytest.raises(ValueError, match=message):
                engine.submit(asked, Listening())
        assert engine.fault() is None
        assert complete(engine, request(prompt))[2].reason is FinishReason.LENGTH
