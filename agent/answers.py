"""Many requests to one engine at once: greedy answers, and how likely given answers are to it."""

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.engine import Engine, Event, Finished, GenerationRequest, PromptRead, Sampling, Token
from agent.tokenizer import Tokenizer
from store.records import FinishReason, TokenTrace

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Traced:
    """An answer, and its tokens with how sure the model was of them."""

    text: str
    tokens: tuple[TokenTrace, ...]


def greedy_answers(
    engine: Engine,
    tokenizer: Tokenizer,
    conversations: Sequence[Messages],
    *,
    max_tokens: int | Sequence[int],
    on_answer: Callable[[int], None],
) -> list[str]:
    """One answer a conversation, in order, of at most `max_tokens` (each); `on_answer` gets the number done so far.
    Raises RuntimeError on a fault.
    """
    traced = traced_answers(engine, tokenizer, conversations, max_tokens=max_tokens, on_answer=on_answer)
    return [answer.text for answer in traced]


def traced_answers(
    engine: Engine,
    tokenizer: Tokenizer,
    conversations: Sequence[Messages],
    *,
    max_tokens: int | Sequence[int],
    on_answer: Callable[[int], None],
) -> list[Traced]:
    """As `greedy_answers`, with the traces that serving would log."""
    limits = [max_tokens] * len(conversations) if isinstance(max_tokens, int) else max_tokens
    requests = [
        GenerationRequest(tuple(tokenizer.chat_ids(messages)), Sampling(max_tokens=limit))
        for messages, limit in zip(conversations, limits, strict=True)
    ]
    return [_traced(events) for events in _all(engine, requests, on_answer)]


def sampled_answers(
    engine: Engine, tokenizer: Tokenizer, conversations: Sequence[Messages], samplings: Sequence[Sampling]
) -> list[tuple[str, bool]]:
    """One answer a conversation, chosen as its sampling says, and whether it came to its end. Raises RuntimeError on a
    fault.
    """
    requests = [
        GenerationRequest(tuple(tokenizer.chat_ids(messages)), sampling)
        for messages, sampling in zip(conversations, samplings, strict=True)
    ]
    found = _all(engine, requests, lambda done: None)
    return [(_traced(events).text, _is_whole(events)) for events in found]


def mean_nll(engine: Engine, tokenizer: Tokenizer, pairs: Sequence[tuple[Messages, str]]) -> float:
    """Mean negative log-likelihood (nats a token) of given answers: on the base's own answers, a measure of drift.
    ValueError when there is nothing to measure on.
    """
    return nll_of(answer_logprobs(engine, tokenizer, pairs))


def nll_of(logprobs: Sequence[Sequence[float]]) -> float:
    """The same out of `answer_logprobs`."""
    told = [one for one in logprobs if one]
    if not told:
        raise ValueError("no retention answers to measure drift on; the suite is empty")
    return -sum(map(sum, told)) / sum(map(len, told))


def answer_logprobs(engine: Engine, tokenizer: Tokenizer, pairs: Sequence[tuple[Messages, str]]) -> list[list[float]]:
    """The log-probability (nats) of each token of each given answer; none for an answer without tokens."""
    requests, lengths = [], []
    for messages, answer in pairs:
        prompt, target = tokenizer.chat_ids(messages), tokenizer.ids(answer)
        lengths.append(len(target))
        if target:
            ids = (*prompt, *target)
            requests.append(GenerationRequest(ids, Sampling(max_tokens=0), prompt_logprobs=0))
    read = iter(_all(engine, requests, lambda done: None))
    return [_last_logprobs(next(read), length) if length else [] for length in lengths]


def _last_logprobs(events: Sequence[Event], count: int) -> list[float]:
    told = next(event for event in events if isinstance(event, PromptRead))
    return [token.logprob for token in told.tokens[-count:]]


def _all(engine: Engine, requests: Sequence[GenerationRequest], on_done: Callable[[int], None]) -> list[list[Event]]:
    """The events of each request, in the requests' order."""
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
    found: list[list[Event]] = [[] for _ in requests]
    for index, request in enumerate(requests):
        engine.submit(request, partial(_put, events, index))
    num_done = 0
    while num_done < len(requests):
        index, event = events.get()
        found[index].append(event)
        if isinstance(event, Finished):
            if event.error:
                raise RuntimeError(event.error)
            num_done += 1
            on_done(num_done)
    return found


def _is_whole(events: Sequence[Event]) -> bool:
    return any(isinstance(event, Finished) and event.reason is FinishReason.STOP for event in events)


def _put(events: "queue.SimpleQueue[tuple[int, Event]]", index: int, event: Event) -> None:
    events.put((index, event))


def _traced(events: Sequence[Event]) -> Traced:
    text = "".join(event.text for event in events if isinstance(event, Token | Finished))
    tokens = (event for event in events if isinstance(event, Token))
    return Traced(text, tuple(TokenTrace(token.id, token.logprob, token.entropy) for token in tokens))
