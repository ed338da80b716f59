"""What the native runner makes of logits, and whole answers through the engine on it."""

import copy
import ctypes
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from threading import Lock
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from agent import sampling
from agent.engine import GenerationRequest, Sampling, complete
from agent.engines.embedded import EmbeddedEngine
from agent.engines.native import NativeRunner
from agent.engines.runner import Choice, Figures, Piece
from agent.kernels.weights import pack
from agent.tokenizer import Tokenizer
from store.records import FinishReason

VOCAB = 259
PROMPTS = ("hi", "What is the capital of France?", "a", "Tell me a very long story about boats. " * 3)


def prompt(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.chat_ids([{"role": "user", "content": text}]))


def native(library: ctypes.CDLL, model: PreTrainedModel, *, threads: int = 2, num_blocks: int = 64) -> NativeRunner:
    return NativeRunner(library, pack(model, 257), num_blocks=num_blocks, threads=threads)


@pytest.fixture
def runner(library: ctypes.CDLL, half_base: PreTrainedModel) -> Iterator[NativeRunner]:
    made = native(library, half_base)
    yield made
    made.close()


@pytest.fixture
def engine(library: ctypes.CDLL, half_base: PreTrainedModel, tokenizer: Tokenizer) -> Iterator[EmbeddedEngine]:
    made = EmbeddedEngine(native(library, half_base), tokenizer, max_batch=6, max_context=256)
    yield made
    made.close(drain_seconds=0)


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_alike(told: Figures, logits: torch.Tensor) -> None:
    expected = sampling.figures(logits[None])[0]
    assert (told.best, told.margin) == (expected.best, expected.margin)
    assert told.entropy == pytest.approx(expected.entropy, abs=1e-4)
    assert told.log_total == pytest.approx(expected.log_total, abs=1e-4)


def test_figures_are_those_of_the_sampling_module(runner: NativeRunner) -> None:
    for token in range(0, VOCAB, 7):
        coming = runner.run([Piece([token, 5], 0, [0], is_whole=True), Piece([token], 0, [1], is_whole=True)])
        for row, told in zip(coming.logits, coming.figures, strict=True):
            assert_alike(told, row)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 30.0])
@pytest.mark.parametrize("equal", [(3, 200), (17, 33), (258, 16), (0, 258)])
def test_figures_hold_for_flat_and_steep_distributions_and_equals_give_the_first(
    library: ctypes.CDLL, half_base: PreTrainedModel, equal: tuple[int, int], scale: float
) -> None:
    model = copy.deepcopy(half_base)
    head = model.get_parameter("lm_head.weight").data
    head *= scale
    runner = native(library, model)
    likeliest = runner.run([Piece([8], 0, [0], is_whole=True)]).figures[0].best
    runner.close()
    head[list(equal)] = head[likeliest] * (1 if scale else 0)
    head[likeliest] = 0 if likeliest not in equal else head[likeliest]
    runner = native(library, model)
    coming = runner.run([Piece([8], 0, [0], is_whole=True)])
    assert coming.figures[0].margin == 0.0
    assert coming.figures[0].best == (min(equal) if scale else 0)
    assert_alike(coming.figures[0], coming.logits[0])
    runner.close()


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def random_choice(draw: random.Random) -> Choice:
    return Choice(
        temperature=draw.choice((0.05, 0.3, 0.7, 1.0, 2.0)),
        top_k=draw.choice((0, 0, 1, 2, 40, 258, 259, 100_000)),
        top_p=draw.choice((1.0, 1.0, 0.95, 0.8, 0.5, 1e-6)),
        min_p=draw.choice((0.0, 0.0, 0.05, 0.5, 1.0)),
        uniform=draw.random(),
    )


def test_drawn_tokens_are_those_of_the_sampling_module_but_for_draws_on_a_boundary(runner: NativeRunner) -> None:
    """Weights are float32 here and float64 there: a draw, or a filter's edge, within 1e-6 of a boundary may differ."""
    draw, generator = random.Random(4), torch.Generator().manual_seed(4)
    rows = [torch.randn(VOCAB, generator=generator) * draw.choice((0.1, 1.0, 5.0)) for _ in range(3000)]
    choices = [random_choice(draw) for _ in rows]
    drawn = runner.choose(rows, choices)
    expected = sampling.choose(rows, choices)
    num_differing = sum(one != other for one, other in zip(drawn, expected, strict=True))
    assert num_differing < 0.01 * len(rows)
    assert len(set(drawn)) > 200


@pytest.mark.parametrize("only", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}])
def test_each_setting_alone_can_leave_the_likeliest_token_only(runner: NativeRunner, only: dict[str, Any]) -> None:
    rows = list(torch.randn((20, VOCAB), generator=torch.Generator().manual_seed(1)))
    usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "uniform": 0.999999}
    assert runner.choose(rows, [Choice(**(usual | only))] * 20) == [int(row.argmax()) for row in rows]


@pytest.mark.parametrize("filters", [(0, 1.0, 0.0), (0, 1.0, 0.05), (5, 0.9, 0.0)])
@pytest.mark.parametrize("temperature", [1e-30, 1e-39, 1e-46, 1e-310])
def test_a_temperature_too_small_for_its_number_takes_the_likeliest_token(
    runner: NativeRunner, temperature: float, filters: tuple[int, float, float]
) -> None:
    row = torch.randn(VOCAB, generator=torch.Generator().manual_seed(1))
    drawn = Choice(temperature, *filters, 0.5)
    assert runner.choose([row], [drawn]) == [int(row.argmax())]
    assert sampling.choose([row], [drawn]) == [int(row.argmax())]


def test_the_least_and_the_greatest_draw_are_the_first_and_the_last_of_what_is_left(runner: NativeRunner) -> None:
    logits = torch.full((VOCAB,), -200.0)
    logits[[7, 100, 258]] = torch.tensor([0.0, 2.0, 1.0])
    for top_k, ends in ((0, [7, 258]), (3, [100, 7]), (2, [100, 258])):
        choices = [Choice(1.0, top_k, 1.0, 0.0, uniform) for uniform in (0.0, 1 - 2.0**-53)]
        assert runner.choose([logits, logits], choices) == ends


def test_draws_follow_the_probabilities_within_the_nucleus(runner: NativeRunner) -> None:
    logits = torch.full((VOCAB,), -math.inf)
    logits[[5, 6, 7]] = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    grid = [Choice(1.0, 0, 0.75, 0.0, (number + 0.5) / 1000) for number in range(1000)]
    drawn = runner.choose([logits] * 1000, grid)
    assert [drawn.count(token) for token in (5, 6, 7)] == pytest.approx([625, 375, 0], abs=1)


# ── whole answers ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_greedy_answers_are_those_of_float32_as_far_as_rounding_does_not_decide(
    library: ctypes.CDLL, tokenizer: Tokenizer
) -> None:
    """Rounding moves this model's logits by 0.026 at most (measured over 320 tokens). Where float32's two likeliest are
    nearer than 0.06 either may come, and what follows is another text. So whole answers are compared up to the first
    such place, and beyond it each next token after float32's own text, wherever float32 is sure.
    """
    torch.manual_seed(5)
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=64, intermediate_size=48, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1, eos_token_id=None)  # fmt: skip
    wide = LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in wide.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    engine = EmbeddedEngine(native(library, wide), tokenizer, max_context=256)
    options = {"do_sample": False, "max_new_tokens": 20, "pad_token_id": 2, "return_dict_in_generate": True}
    num_compared = 0
    for text in (*PROMPTS, *(f"Question number {number}?" for number in range(8))):
        ids = prompt(tokenizer, text)
        given = torch.tensor([ids])
        told = wide.generate(given, attention_mask=torch.ones_like(given), output_logits=True, **options)
        theirs = told.sequences[0, len(ids) :].tolist()
        is_sure = [float(row[0].topk(2).values.diff().abs()) > 0.06 for row in told.logits]
        num_sure = [*is_sure, False].index(False)
        _, tokens, _ = complete(engine, GenerationRequest(ids, Sampling(max_tokens=20, ignore_eos=True)))
        assert [token.id for token in tokens][:num_sure] == theirs[:num_sure]
        for place in (number for number in range(num_sure, 20) if is_sure[number]):
            request = GenerationRequest((*ids, *theirs[:place]), Sampling(max_tokens=1, ignore_eos=True))
            assert complete(engine, request)[1][0].id == theirs[place]
        num_compared += sum(is_sure)
    engine.close(drain_seconds=0)
    assert num_compared >= 150


def test_twenty_seeded_requests_in_a_mixed_batch_answer_exactly_as_each_alone(
    engine: EmbeddedEngine, tokenizer: Tokenizer
) -> None:
    def asked(number: int) -> GenerationRequest:
        settings: dict[str, Any] = {"temperature": (0.0, 0.7, 1.0, 1.5)[number % 4], "seed": number}
        settings |= ({}, {"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05}, {"presence_penalty": 0.5})[number % 5]
        ids = prompt(tokenizer, PROMPTS[number % 3] + str(number))
        return GenerationRequest(ids, Sampling(max_tokens=8 + number % 7, ignore_eos=True, **settings), f"c{number}")

    alone = [complete(engine, asked(number)) for number in range(20)]
    together: list[list[Any]] = [[] for _ in range(20)]
    for number, events in enumerate(together):
        engine.submit(asked(number), events.append)
    engine.close(drain_seconds=30)
    for events, (_, tokens, end) in zip(together, alone, strict=True):
        assert events[:-1] == tokens  # text, log-probability, entropy and margin too
        assert replace(events[-1], num_cached=end.num_cached) == end


def test_a_beginning_found_in_the_cache_gives_the_same_figures_to_the_last_bit(
    engine: EmbeddedEngine, tokenizer: Tokenizer
) -> None:
    request = GenerationRequest(prompt(tokenizer, PROMPTS[3]), Sampling(max_tokens=10, top_logprobs=3))
    first = complete(engine, request)
    assert engine.stats().prefix_hits == 0
    again = complete(engine, request)
    assert again[:2] == first[:2]
    assert (first[2].num_cached, again[2].num_cached % 16) == (0, 0)
    assert again[2].num_cached > 0
    assert engine.stats().prefix_hits >= 16


def test_requests_that_had_to_give_up_their_blocks_answer_as_if_they_had_not(
    library: ctypes.CDLL, half_base: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    def asked(number: int) -> GenerationRequest:
        sampling_ = Sampling(temperature=1.0, seed=number, max_tokens=40, ignore_eos=True)
        return GenerationRequest(prompt(tokenizer, f"hi {number}"), sampling_, f"c{number}")

    turn = Lock()
    runner = NativeRunner(library, pack(half_base, 257), num_blocks=9, threads=2, turn=turn)
    small = EmbeddedEngine(runner, tokenizer, max_batch=4, max_context=128)
    alone = [complete(small, asked(number))[1] for number in range(4)]
    assert small.stats().num_preemptions == 0
    together: list[list[Any]] = [[] for _ in range(4)]
    with turn:  # none gets on before all are there
        for number, events in enumerate(together):
            small.submit(asked(number), events.append)
    small.close(drain_seconds=30)
    assert small.stats().num_preemptions > 0
    assert [events[:-1] for events in together] == alone


@pytest.mark.parametrize(
    "name",
    [
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "lm_head.weight",
    ],
)
def test_one_nan_anywhere_in_the_weights_ends_requests_with_an_error(
    library: ctypes.CDLL, half_base: PreTrainedModel, tokenizer: Tokenizer, name: str
) -> None:
    model = copy.deepcopy(half_base)
    model.get_parameter(name).data.view(-1)[5] = float("nan")
    engine = EmbeddedEngine(native(library, model), tokenizer, max_context=256)
    _, tokens, end = complete(engine, GenerationRequest(prompt(tokenizer, "hi"), Sampling(max_tokens=4)))
    engine.close(drain_seconds=0)
    assert (tokens, end.reason) == ([], FinishReason.ERROR)
    assert "NaN or infinite logits" in str(end.error)
