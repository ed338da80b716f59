"""Many greedy answers at once, through the engine: for evaluation and for the base's own answers in replay."""

import queue
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from agent.engine import Event, Finished, GenerationRequest, Sampling, Token
from agent.engines.embedded import EmbeddedEngine
from agent.engines.reference import ReferenceRunner
from agent.tokenizer import Tokenizer


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    max_tokens: int,
    batch: int,
    on_answer: Callable[[int], None],
) -> list[str]:
    """One answer a conversation, in order; `on_answer` gets the number done so far. Raises RuntimeError on a fault."""
    engine = EmbeddedEngine(ReferenceRunner(model), tokenizer, max_batch=batch, max_waiting=max(1, len(conversations)))
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
    for index, messages in enumerate(conversations):
        request = GenerationRequest(tuple(tokenizer.chat_ids(messages)), Sampling(max_tokens=max_tokens))
        engine.submit(request, partial(_put, events, index))
    texts = [""] * len(conversations)
    num_done = 0
    try:
        while num_done < len(conversations):
            index, event = events.get()
            if isinstance(event, Token | Finished):
                texts[index] += event.text
            if isinstance(event, Finished):
                if event.error:
                    raise RuntimeError(event.error)
                num_done += 1
                on_answer(num_done)
    finally:
        engine.close(drain_seconds=0)
    return texts


def _put(events: "queue.SimpleQueue[tuple[int, Event]]", index: int, event: Event) -> None:
    events.put((index, event))
