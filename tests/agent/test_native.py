"""The native runner on small random Llamas: near to float32, the same bits in every company, and no memory but its own.

How near: every input of a product is rounded to bfloat16, some 0.2 % each time. Measured on these shapes, the logits
are off by 0.4 to 0.6 % of their norm on average and by 1.1 % at worst; transformers' own bfloat16 forward is off by 0.6
to 0.8 %. Angles that are off by one position give more than 10 %. The line is drawn at 1 % on average, 2.5 % at worst.
"""

import copy
import ctypes
import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agent.engines.native import NativeRunner
from agent.engines.reference import ReferenceRunner
from agent.engines.runner import BLOCK, Piece
from agent.kernels.weights import Weight, pack
from agent.model import Adapter, merge_adapter
from tests.fakes import adapter_files

MEAN_ERROR, WORST_ERROR = 0.01, 0.025
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SHAPES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "a head each, tied": {"num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True},
    "one head for all": {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64},
    "llama3 angles": {
        "hidden_size": 128,
        "head_dim": 64,
        "vocab_size": 259,
        "rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64},
    },
    "three heads of 48": {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 48},
    "qwen2, biases": {"model_type": "qwen2"},
    "qwen3, norms of heads": {"model_type": "qwen3", "head_dim": 32},
}
KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
LENGTHS = (1, 2, 5, 16, 17, 33, 64, 100)


def config(**changes: Any) -> dict[str, Any]:
    values = {"vocab_size": 101, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2}
    values |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    return values | {"initializer_range": 0.1, "tie_word_embeddings": False} | changes


@cache
def llama(shape: str) -> PreTrainedModel:
    """A random Llama or a cousin as it would be loaded: weights in bfloat16, rotary frequencies in float32. Nobody
    changes it.
    """
    torch.manual_seed(2)
    values = config(**SHAPES[shape])
    make_config, make_model = KINDS[values.pop("model_type", "llama")]
    model: PreTrainedModel = make_model(make_config(**values)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):  # they begin as zeros and ones, which no fault would change
            parameter.data += 0.3 * torch.randn(parameter.shape)
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


def widened(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights, to be computed with in float32."""
    wide = copy.deepcopy(model)
    for parameter in wide.parameters():
        parameter.data = parameter.data.float()
    return wide


def tokens(length: int, seed: int = 0, vocab: int = 101) -> list[int]:
    draw = random.Random(f"{length} {seed}")
    return [draw.randrange(vocab) for _ in range(length)]


@contextmanager
def native(
    library: ctypes.CDLL,
    model: PreTrainedModel,
    *,
    threads: int = 1,
    num_blocks: int = 64,
    weight: Weight | None = None,
    is_int8: bool = False,
) -> Iterator[NativeRunner]:
    packed = pack(model, 200, weight, is_int8=is_int8)
    runner = NativeRunner(library, packed, num_blocks=num_blocks, threads=threads)
    try:
        yield runner
    finally:
        runner.close()


def read(runner: Any, ids: Sequence[int], *, first: int = 0, cuts: Sequence[int] = ()) -> torch.Tensor:
    """Logits (V,) after `ids`, read in pieces that end at `cuts`, in blocks from `first` on."""
    blocks = list(range(first, first + -(-len(ids) // BLOCK)))
    bounds = [0, *cuts, len(ids)]
    for start, end in pairwise(bounds):
        coming = runner.run([Piece(ids[start:end], start, blocks, is_whole=end == len(ids))])
    logits: torch.Tensor = coming.logits[0].clone()
    return logits


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runner(library: ctypes.CDLL) -> Iterator[NativeRunner]:
    with native(library, llama("grouped heads")) as made:
        yield made


# ── how near ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def errors(runner: Any, wide: PreTrainedModel) -> list[float]:
    """By what share of their norm the logits are off, for a prompt of each length."""
    off = []
    for length in LENGTHS:
        ids = tokens(length)
        exact = wide(torch.tensor([ids])).logits[0, -1]
        off.append(float((read(runner, ids) - exact).norm() / exact.norm()))
    return off


def test_logits_are_as_near_to_float32_as_bfloat16_lets_them(library: ctypes.CDLL, shape: str) -> None:
    model = llama(shape)
    with native(library, model) as runner:
        off = errors(runner, widened(model))
    theirs = errors(ReferenceRunner(model), widened(model))
    assert sum(off) / len(off) < min(MEAN_ERROR, 1.2 * sum(theirs) / len(theirs))
    assert max(off) < WORST_ERROR


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """The model whose products have each output's weights in 255 even steps, to be computed with in float32."""
    wide = widened(model)
    for linear in (m for m in wide.modules() if isinstance(m, torch.nn.Linear)):
        scales = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        linear.weight = torch.nn.Parameter((linear.weight / scales).round() * scales, requires_grad=False)
    return wide


def test_int8_weights_are_the_rounded_ones_and_differ_from_the_whole_ones(library: ctypes.CDLL, shape: str) -> None:
    model = llama(shape)
    with native(library, model, is_int8=True) as runner:
        off, from_whole = errors(runner, rounded(model)), errors(runner, widened(model))
    assert sum(off) / len(off) < MEAN_ERROR
    assert max(off) < WORST_ERROR
    assert sum(from_whole) > sum(off)


def test_int8_weights_give_the_same_bits_in_a_batch_and_with_any_threads(library: ctypes.CDLL, shape: str) -> None:
    model = llama(shape)
    with native(library, model, is_int8=True) as runner, native(library, model, is_int8=True, threads=3) as threaded:
        alone = [read(runner, tokens(length)) for length in LENGTHS]
        pieces = [
            Piece(tokens(length), 0, list(range(7 * number, 7 * number + 7)), is_whole=True)
            for number, length in enumerate(LENGTHS)
        ]
        for one in (runner, threaded):
            assert all(torch.equal(row, it) for row, it in zip(one.run(pieces).logits, alone, strict=True))


def test_int8_weights_that_are_not_finite_show_in_the_logits(library: ctypes.CDLL) -> None:
    for value in (float("nan"), float("inf")):
        model = copy.deepcopy(llama("grouped heads"))
        model.model.layers[1].mlp.down_proj.weight[3, 5] = value
        with native(library, model, is_int8=True) as runner:
            assert not read(runner, tokens(3)).isfinite().all()


def test_an_adapter_packed_in_is_the_adapter_merged_in(library: ctypes.CDLL, half_base: PreTrainedModel) -> None:
    adapter = adapter_files(scale=0.05)
    merged = merge_adapter(half_base, adapter)
    with native(library, half_base, weight=Adapter(half_base, adapter).merged) as packed:
        logits = [read(packed, tokens(length)) for length in LENGTHS]
    with native(library, half_base) as plain, native(library, merged) as same:
        assert all(torch.equal(read(same, tokens(n)), row) for n, row in zip(LENGTHS, logits, strict=True))
        assert not any(torch.equal(read(plain, tokens(n)), row) for n, row in zip(LENGTHS, logits, strict=True))
    reference = ReferenceRunner(widened(merged))
    for length, row in zip(LENGTHS, logits, strict=True):  # this base's weights are five times larger, and so its error
        exact = read(reference, tokens(length))
        assert float((row - exact).norm() / exact.norm()) < 0.1


def test_an_adapter_of_a_tied_head_changes_the_head_and_not_the_embedding(library: ctypes.CDLL) -> None:
    model = llama("a head each, tied")
    a, b = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.1 for shape in ((2, 64), (101, 2)))
    names = ("base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight")
    config = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["lm_head"]}).encode()
    files = {"adapter_config.json": config, "adapter_model.safetensors": save(dict(zip(names, (a, b), strict=True)))}
    wide, ids = widened(model), tokens(20)
    state = wide.model(torch.tensor([ids])).last_hidden_state[0, -1]
    expected = (wide.lm_head.weight + 2 * b @ a) @ state
    with native(library, model, weight=Adapter(model, files).merged) as packed:
        for runner in (packed, ReferenceRunner(merge_adapter(wide, files))):
            assert float((read(runner, ids) - expected).norm() / expected.norm()) < WORST_ERROR


# ── the same bits ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sequence_has_the_same_bits_in_a_mixed_batch_as_alone(library: ctypes.CDLL, shape: str) -> None:
    lengths = (33, 1, 17, 50, 16, 2, 90)
    with native(library, llama(shape)) as runner:
        alone = [read(runner, tokens(length)) for length in lengths]
        pieces, first = [], 0
        for number, length in enumerate(lengths):  # the last prompts are whole in it, the first have one token left
            ids, blocks = tokens(length), list(range(first, first + 6))
            done = length - 1 if number < 4 else 0
            if done:
                runner.run([Piece(ids[:done], 0, blocks, is_whole=False)])
            pieces.append(Piece(ids[done:], done, blocks, is_whole=True))
            first += 6
        together = runner.run(pieces).logits
        assert together.shape == (len(lengths), llama(shape).config.vocab_size)
        assert all(torch.equal(row, one) for row, one in zip(together, alone, strict=True))
        backwards = runner.run(pieces[::-1]).logits
        assert all(torch.equal(row, one) for row, one in zip(backwards, alone[::-1], strict=True))


def test_a_prompt_has_the_same_bits_wherever_it_is_cut(library: ctypes.CDLL, shape: str) -> None:
    ids = tokens(37)
    with native(library, llama(shape)) as runner:
        whole = read(runner, ids)
        for cut in range(1, len(ids)):
            assert torch.equal(read(runner, ids, cuts=[cut]), whole)
        assert torch.equal(read(runner, ids, cuts=list(range(1, len(ids)))), whole)


def test_block_numbers_threads_and_who_was_there_before_leave_the_bits_alone(library: ctypes.CDLL, shape: str) -> None:
    ids, other = tokens(37), tokens(64, seed=1)
    with native(library, llama(shape)) as runner, native(library, llama(shape), threads=3) as threaded:
        fresh = read(runner, ids)
        assert torch.equal(read(runner, ids, first=60 - 3), fresh)
        assert torch.equal(read(threaded, ids), fresh)
        for one in (runner, threaded):
            assert not torch.equal(read(one, other), fresh)
            assert torch.equal(read(one, ids), fresh)


def test_blocks_in_any_order_and_a_shared_beginning_leave_the_bits_alone(runner: NativeRunner) -> None:
    ids = tokens(45)
    expected = read(runner, ids)
    runner.run([Piece(ids[:40], 0, [9, 3, 30], is_whole=False)])
    rest = [Piece(ids[32:], 32, [9, 3, block], is_whole=True) for block in (11, 12)]
    assert all(torch.equal(row, expected) for row in runner.run(rest).logits)


def test_runners_at_work_at_the_same_time_do_not_disturb_each_other(library: ctypes.CDLL) -> None:
    model, ids, differing = llama("grouped heads"), tokens(60), []
    with native(library, model) as runner:
        expected = read(runner, ids)

    def work(threads: int) -> None:
        for _ in range(10):
            with native(library, model, threads=threads) as own:
                differing.append(not torch.equal(read(own, ids), expected))

    workers = [threading.Thread(target=work, args=(threads,)) for threads in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert differing == [False] * 30


def test_a_runner_computes_only_in_its_turn(library: ctypes.CDLL) -> None:
    turn, ids = threading.Lock(), tokens(20)
    runner = NativeRunner(library, pack(llama("grouped heads"), 200), num_blocks=4, threads=1, turn=turn)
    found: list[torch.Tensor] = []
    worker = threading.Thread(target=lambda: found.append(read(runner, ids)))
    with turn:
        worker.start()
        worker.join(0.2)
        assert worker.is_alive()
    worker.join(60)
    assert torch.equal(found[0], read(runner, ids))
    runner.close()


def test_more_threads_than_work_still_end(library: ctypes.CDLL) -> None:
    with native(library, llama("grouped heads")) as one, native(library, llama("grouped heads"), threads=9) as many:
        assert torch.equal(read(many, [7]), read(one, [7]))


# ── what it refuses, and its end ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wrong", [101, -1, 2**31 - 1])
def test_a_token_outside_the_vocabulary_is_refused_and_the_next_batch_runs(runner: NativeRunner, wrong: int) -> None:
    fine = Piece([1], 0, [1], is_whole=True)
    with pytest.raises(IndexError, match="outside the vocabulary of 101"):
        runner.run([fine, Piece([5, wrong], 0, [0], is_whole=True)])
    assert len(runner.run([fine]).figures) == 1


def test_a_position_beyond_the_prepared_is_refused_and_the_last_one_is_not(runner: NativeRunner) -> None:
    blocks = list(range(13))
    runner.run([Piece(tokens(199), 0, blocks, is_whole=False)])
    assert len(runner.run([Piece([5], 199, blocks, is_whole=True)]).figures) == 1
    with pytest.raises(IndexError, match="position 201 is beyond the 200 prepared"):
        runner.run([Piece([5, 6], 199, blocks, is_whole=True)])


def test_pieces_that_are_not_whole_give_no_rows(runner: NativeRunner) -> None:
    coming = runner.run([Piece([1, 2], 0, [0], is_whole=False)])
    assert (len(coming.logits), coming.figures) == (0, [])


def test_a_runner_closes_twice(library: ctypes.CDLL) -> None:
    before = threading.active_count(), psutil.Process().num_threads()
    runner = NativeRunner(library, pack(llama("grouped heads"), 200), num_blocks=4, threads=3)
    assert psutil.Process().num_threads() == before[1] + 2
    runner.close()
    runner.close()
    assert (threading.active_count(), psutil.Process().num_threads()) == before


def test_the_cache_takes_no_memory_before_it_is_used(library: ctypes.CDLL) -> None:
    before = psutil.Process().memory_info().rss
    with native(library, llama("grouped heads"), num_blocks=1 << 16):  # 256 MiB
        assert psutil.Process().memory_info().rss - before < 32 << 20


def test_fewer_threads_between_steps_and_more_again_leave_the_bits_alone(library: ctypes.CDLL) -> None:
    ids = tokens(60, seed=3)
    with native(library, llama("grouped heads"), threads=4) as runner:
        expected = read(runner, ids)
        for count in (1, 4, 2, 1, 3, 0, 99):
            runner.use_threads(count)
            assert torch.equal(read(runner, ids), expected)
