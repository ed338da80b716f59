"""Doubt by one answer's trace, and by several drawn answers."""

from collections.abc import Callable

import numpy as np
import pytest

from agent.doubts import DRAWN, SampledDoubts, TracedDoubts, doubts
from agent.engine import EngineClosed, GenerationRequest, Sampling, complete
from agent.engines.embedded import EmbeddedEngine
from agent.uncertainty import mean_entropy
from store.records import TokenTrace
from tests.fakes import WordEmbedder

Prompt = Callable[[str], tuple[int, ...]]


def test_a_traced_doubt_is_the_signal_over_the_likeliest_answer(engine: EmbeddedEngine, prompt: Prompt) -> None:
    _, tokens, _ = complete(engine, GenerationRequest(prompt("Why?"), Sampling(max_tokens=9)))
    expected = mean_entropy([TokenTrace(token.id, token.logprob, token.entropy) for token in tokens])
    assert TracedDoubts("mean_entropy").of(engine, prompt("Why?"), 9) == pytest.approx(expected, rel=1e-5)


def test_a_sampled_doubt_is_between_all_alike_and_all_apart_and_the_same_again(
    engine: EmbeddedEngine, prompt: Prompt
) -> None:
    told = SampledDoubts("semantic_entropy", WordEmbedder)
    first, second = (told.of(engine, prompt("Why?"), 9) for _ in range(2))
    assert first == second
    assert first is not None
    assert 0.0 <= first <= np.log(DRAWN) + 1e-6


def test_an_engine_that_is_gone_is_not_a_doubt(engine: EmbeddedEngine, prompt: Prompt) -> None:
    engine.close(drain_seconds=0)
    for told in (TracedDoubts("mean_entropy"), SampledDoubts("self_consistency", WordEmbedder)):
        with pytest.raises(EngineClosed):
            told.of(engine, prompt("Why?"), 9)


def test_a_signal_over_samples_goes_first_where_one_is_named() -> None:
    assert isinstance(doubts("mean_entropy", "", WordEmbedder), TracedDoubts)
    assert isinstance(doubts("mean_entropy", "self_consistency", WordEmbedder), SampledDoubts)
    with pytest.raises(ValueError, match="no signal over samples 'wibble'"):
        doubts("mean_entropy", "wibble", WordEmbedder)
