"""Continuous batching end to end on the tiny Llama: pre-emption, cut prompts, shared beginnings, settings, counters."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent.engine import EngineStats, Event, Finished, GenerationRequest, Sampling, Ticket, Token, complete
from agent.engines.embedded import EmbeddedEngine
from agent.engines.reference import ReferenceRunner
from agent.engines.scheduler import Budget
from agent.tokenizer import Tokenizer
from store.records import FinishReason

Prompt = Callable[[str], tuple[int, ...]]
Make = Callable[..., EmbeddedEngine]
Ask = Callable[..., GenerationRequest]
QUESTIONS = ("hi", "Who owns the red boat?", "a", "Where is the harbour?", "Is it far?", "Why?")
LONG = "Tell me a very long story about boats. " * 3
END = 2  # the tiny Llama's end token


@pytest.fixture
def make_engine(base: PreTrainedModel, tokenizer: Tokenizer) -> Iterator[Make]:
    """Engines with a cache of so many blocks, closed at the end."""
    made: list[EmbeddedEngine] = []

    def make(num_blocks: int = 64, **options: Any) -> EmbeddedEngine:
        options = {"max_context": 256} | options
        made.append(EmbeddedEngine(ReferenceRunner(base, num_blocks), tokenizer, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close(drain_seconds=0)


@pytest.fixture
def ask(prompt: Prompt) -> Ask:
    def ask(question: str = "hi", *, caller: str = "ann", **sampling: Any) -> GenerationRequest:
        return GenerationRequest(prompt(question), Sampling(**({"max_tokens": 12} | sampling)), caller)

    return ask


def ids_of(engine: EmbeddedEngine, request: GenerationRequest) -> list[int]:
    return [token.id for token in complete(engine, request)[1]]


def rest(events: queue.SimpleQueue[Event]) -> tuple[list[int], FinishReason]:
    """The token ids of an answer, and why it ended."""
    ids: list[int] = []
    while isinstance(event := events.get(timeout=20), Token):
        ids.append(event.id)
    return ids, event.reason


def together(
    engine: EmbeddedEngine, requests: Sequence[GenerationRequest]
) -> tuple[list[tuple[list[int], FinishReason]], EngineStats]:
    """The answers of requests that are all there when the first has said its first token, and the stats then."""
    first, *others = queues = [queue.SimpleQueue[Event]() for _ in requests]
    began, gate = threading.Event(), threading.Event()

    def listener(event: Event) -> None:
        first.put(event)
        began.set()
        gate.wait(20)

    engine.submit(requests[0], listener)
    assert began.wait(20), "it never began"
    for request, events in zip(requests[1:], others, strict=True):
        engine.submit(request, events.put)
    stats = engine.stats()
    gate.set()
    return [rest(events) for events in queues], stats


# ── a cache that is too small for all, and prompts in pieces ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 1.2, "top_k": 20, "min_p": 0.02, "top_p": 0.95},
        {"temperature": 0.8, "frequency_penalty": 1.5, "presence_penalty": 0.5, "logit_bias": ((70, 2.0),)},
        {"frequency_penalty": 2.0, "stop": ("zq",)},
    ],
)
def test_answers_that_were_preempted_are_those_of_each_alone(
    make_engine: Make, ask: Ask, sampling: dict[str, Any]
) -> None:
    requests = [ask(q, max_tokens=45, seed=number, **sampling) for number, q in enumerate(QUESTIONS)]
    roomy, tiny = make_engine(), make_engine(7, max_context=110, max_batch=4)
    alone = [together(roomy, [request])[0][0] for request in requests]
    assert roomy.stats().num_preemptions == 0
    assert together(tiny, requests)[0] == alone
    assert tiny.stats().num_preemptions > 0
    assert tiny.stats().generated_tokens == sum(len(ids) for ids, _ in alone)
    assert tiny.stats().cache_usage == 0.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_long_prompts_cut_in_pieces_give_the_same_tokens(make_engine: Make, ask: Ask, temperature: float) -> None:
    questions = ("hi", LONG, LONG + "Again!", "a")
    requests = [ask(q, max_tokens=25, temperature=temperature, seed=n) for n, q in enumerate(questions)]
    whole, cut = make_engine(budget=Budget(idle=1000, busy=1000)), make_engine(budget=Budget(idle=16, busy=8))
    alone = [together(whole, [request])[0][0] for request in requests]
    assert [together(cut, [request])[0][0] for request in requests] == alone
    assert together(make_engine(budget=Budget(idle=16, busy=8)), requests)[0] == alone


def test_preempted_answers_that_are_cancelled_end_and_give_their_blocks_back(make_engine: Make, ask: Ask) -> None:
    engine = make_engine(7, max_context=110, max_batch=4)
    first, *others = [queue.SimpleQueue[Event]() for _ in range(4)]
    all_there = threading.Event()
    tickets: list[Ticket] = []

    def listener(event: Event) -> None:
        first.put(event)
        all_there.wait(20)
        if first.qsize() == 50:  # all four together have no room for so many
            for ticket in tickets:
                ticket.cancel()

    engine.submit(ask(max_tokens=60), listener)
    for question, events in zip(QUESTIONS[1:], others, strict=False):
        tickets.append(engine.submit(ask(question, max_tokens=80), events.put))
    all_there.set()
    assert [rest(events)[1] for events in others] == [FinishReason.DISCONNECT] * 3
    assert rest(first)[0] == ids_of(make_engine(), ask(max_tokens=60))
    assert engine.stats().num_preemptions > 0
    assert (engine.stats().cache_usage, engine.num_active()) == (0.0, 0)


def test_a_cache_too_small_for_one_context_is_refused_and_named_with_it(
    base: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    with pytest.raises(ValueError, match="a cache of 4 blocks cannot hold one context of 64 tokens"):
        EmbeddedEngine(ReferenceRunner(base, 4), tokenizer, max_context=64)
    EmbeddedEngine(ReferenceRunner(base, 4), tokenizer, max_context=63).close(drain_seconds=0)


def test_a_context_that_fills_the_cache_to_its_last_block_is_answered_to_its_end(make_engine: Make, ask: Ask) -> None:
    ids, end = together(make_engine(4, max_context=63), [ask(max_tokens=500)])[0][0]
    assert (len(ask().prompt_ids) + len(ids), end) == (63, FinishReason.LENGTH)


def test_a_prompt_that_the_cache_can_never_hold_does_not_keep_the_others_waiting(make_engine: Make, ask: Ask) -> None:
    engine = make_engine(4, max_context=63)
    small = queue.SimpleQueue[Event]()
    with suppress(ValueError):  # to refuse it at once is as good as to end it with an error
        engine.submit(GenerationRequest((5,) * 200), lambda _: None)
    engine.submit(ask(), small.put)
    assert isinstance(small.get(timeout=5), Token)


# ── beginnings read before ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_beginning_is_found_for_the_same_caller_and_for_no_other_with_the_same_answer(
    make_engine: Make, ask: Ask
) -> None:
    engine = make_engine()
    length = len(ask(LONG).prompt_ids)
    known = (length - 1) // 16 * 16
    answer = ids_of(make_engine(), ask(LONG))
    for caller, hits in (("ann", 0), ("ann", known), ("bob", known), ("", known), ("bob", 2 * known)):
        assert ids_of(engine, ask(LONG, caller=caller)) == answer
        assert engine.stats().prefix_hits == hits
    assert engine.stats().prefix_queries == 5 * length


def test_a_conversation_that_goes_on_finds_what_was_read_and_said(make_engine: Make, ask: Ask, prompt: Prompt) -> None:
    engine = make_engine()
    first = ask(max_tokens=40)
    said = ids_of(engine, first)
    more = (*first.prompt_ids, *said, *prompt("and then?"))
    warm = ids_of(engine, GenerationRequest(more, Sampling(max_tokens=20), "ann"))
    assert engine.stats().prefix_hits == (len(first.prompt_ids) + len(said) - 1) // 16 * 16
    assert warm == ids_of(make_engine(), GenerationRequest(more, Sampling(max_tokens=20), "ann"))


# ── settings of a request ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_with_bias_of_minus_100_never_appears_and_one_of_100_always(make_engine: Make, ask: Ask) -> None:
    engine = make_engine()
    plain = ids_of(engine, ask())
    banned = tuple((token, -100.0) for token in set(plain[:3]))
    for temperature in (0.0, 1.0):
        ids = ids_of(engine, ask(logit_bias=banned, temperature=temperature, seed=4))
        assert len(ids) == 12
        assert not {token for token, _ in banned} & set(ids)
        assert ids_of(engine, ask(logit_bias=((77, 100.0),), temperature=temperature, seed=4)) == [77] * 12
    assert ids_of(engine, ask()) == plain


def test_the_frequency_penalty_grows_with_each_repetition_and_the_presence_penalty_does_not(
    make_engine: Make, ask: Ask
) -> None:
    engine = make_engine()
    bias = ((77, 1000.0),)  # 700, 400 and 100 are ahead of every other token still, -200 is behind
    by_frequency = ids_of(engine, ask(logit_bias=bias, frequency_penalty=300.0))
    assert by_frequency[:4] == [77] * 4
    assert 77 not in by_frequency[4:]
    assert ids_of(engine, ask(logit_bias=bias, presence_penalty=900.0)) == [77] * 12
    assert ids_of(engine, ask(logit_bias=bias, presence_penalty=1200.0)).count(77) == 1


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_count_the_answer_and_not_the_prompt(make_engine: Make, ask: Ask, penalty: str) -> None:
    engine = make_engine()
    plain = ids_of(engine, ask(max_tokens=40))
    penalised = ids_of(engine, ask(max_tokens=40, **{penalty: 100.0}))
    assert max(Counter(plain).values()) > 1
    assert max(Counter(penalised).values()) == 1
    at = next(number for number, token in enumerate(plain) if token in plain[:number])
    assert penalised[:at] == plain[:at]
    said_before = (*ask().prompt_ids, *plain[:at])
    settings = Sampling(max_tokens=1, **{penalty: 100.0})
    assert ids_of(engine, GenerationRequest(said_before, settings)) == [plain[at]]


@pytest.mark.parametrize(
    "sampling",
    [
        {"logit_bias": ((77, 100.0),)},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0, "temperature": 1.0, "seed": 1},
        {"top_k": 5, "min_p": 0.3, "top_p": 0.5, "temperature": 0.3, "seed": 1},
    ],
)
def test_figures_stay_those_of_the_unprocessed_distribution(
    base: PreTrainedModel, make_engine: Make, ask: Ask, sampling: dict[str, Any]
) -> None:
    request = ask(max_tokens=8, top_logprobs=2, **sampling)
    _, tokens, _ = complete(make_engine(), request)
    ids = [*request.prompt_ids, *(token.id for token in tokens)]
    with torch.inference_mode():
        logprobs = torch.log_softmax(base(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
    for token, row in zip(tokens, logprobs[len(request.prompt_ids) - 1 : -1], strict=True):
        best, second = row.topk(2).values.tolist()
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-3)
        assert token.entropy == pytest.approx(float(-(row.exp() * row).sum()), abs=1e-3)
        assert token.margin == pytest.approx(best - second, abs=1e-3)
        assert [other.logprob for other in token.top] == pytest.approx([best, second], abs=1e-3)


def test_ignore_eos_goes_on_past_the_end_token(make_engine: Make, ask: Ask) -> None:
    engine, bias = make_engine(), ((END, 100.0),)
    assert complete(engine, ask(logit_bias=bias)) == ("", [], Finished(FinishReason.STOP))
    text, tokens, end = complete(engine, ask(logit_bias=bias, ignore_eos=True))
    assert [token.id for token in tokens] == [END] * 12
    assert (text, end.reason) == ("", FinishReason.LENGTH)


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}])
def test_a_filter_that_leaves_one_token_is_greedy_at_any_temperature(
    make_engine: Make, ask: Ask, sampling: dict[str, Any]
) -> None:
    engine = make_engine()
    assert ids_of(engine, ask(temperature=2.0, seed=3, **sampling)) == ids_of(engine, ask())
    assert ids_of(engine, ask(temperature=2.0, seed=3)) != ids_of(engine, ask())


def test_filters_draw_only_what_they_leave(make_engine: Make, ask: Ask) -> None:
    engine = make_engine()
    for seed in range(5):
        tokens = complete(engine, ask(temperature=2.0, seed=seed, top_k=3, top_logprobs=3))[1]
        assert all(token.id in [other.token_id for other in token.top] for token in tokens)
        tokens = complete(engine, ask(temperature=1.0, seed=seed, min_p=0.2, top_logprobs=1))[1]
        assert all(token.logprob >= token.top[0].logprob + torch.tensor(0.2).log() - 1e-4 for token in tokens)


# ── counters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stats_count_what_was_done_and_show_what_is_under_way(make_engine: Make, ask: Ask) -> None:
    engine = make_engine(64, max_batch=2)
    assert engine.stats() == EngineStats()
    requests = [ask(question, max_tokens=6) for question in QUESTIONS[:4]]
    answers, meanwhile = together(engine, requests)
    assert (meanwhile.num_running, meanwhile.num_waiting, meanwhile.generated_tokens) == (1, 3, 1)
    assert meanwhile.prompt_tokens == len(requests[0].prompt_ids)
    assert meanwhile.cache_usage == -(-len(requests[0].prompt_ids) // 16) / 64
    after = engine.stats()
    num_prompt = sum(len(request.prompt_ids) for request in requests)
    assert (after.prompt_tokens, after.prefix_queries) == (num_prompt, num_prompt)
    assert after.generated_tokens == sum(len(ids) for ids, _ in answers) == 24
    assert (after.num_running, after.num_waiting, after.cache_usage, after.num_preemptions) == (0, 0, 0.0, 0)
    for max_tokens in (0, 1):
        complete(engine, GenerationRequest((40,) * 100, Sampling(max_tokens=max_tokens), "ann", prompt_logprobs=0))
    assert engine.stats().prompt_tokens == num_prompt + 200
    assert 0.0 < meanwhile.busy_seconds < after.busy_seconds
