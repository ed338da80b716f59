"""Which runner a loader takes, why it takes the slow one, and what it builds with either."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agent.engine import GenerationRequest, Sampling, complete
from agent.engines.blocks import blocks_for
from agent.kernels.weights import why_not
from agent.model import ADAPTER_WEIGHTS, WEIGHTS
from agent.serving import EngineSettings, LoadError, ModelLoader, ServedModel
from agent.tokenizer import Tokenizer
from tests.fakes import adapter_files

CHECKPOINT = "c0ffee" * 10 + "cafe"
Load = Callable[..., ModelLoader]


@pytest.fixture
def make_loader(base_files: dict[str, bytes], tiny_llama: Path, kernels: Path) -> Load:
    """A loader of the tiny Llama on the CPU with the session's kernels, or with other settings and files."""

    def made(files: dict[str, bytes] | None = None, **changes: Any) -> ModelLoader:
        values: dict[str, Any] = {"device": "cpu", "kernels": kernels, "threads": 2, "cache_mb": 8} | changes
        return ModelLoader(base_files | (files or {}), tiny_llama, "base", EngineSettings(**values))

    return made


@pytest.fixture
def closing() -> Iterator[list[ServedModel]]:
    """What is put here is closed in the end."""
    served: list[ServedModel] = []
    yield served
    for one in served:
        one.engine.close(drain_seconds=0)


def answer(served: ServedModel, tokenizer: Tokenizer) -> list[int]:
    ids = tokenizer.chat_ids([{"role": "user", "content": "hi"}])
    return [t.id for t in complete(served.engine, GenerationRequest(tuple(ids), Sampling(max_tokens=12)))[1]]


def changed(data: bytes, change: Callable[[dict[str, torch.Tensor]], None]) -> bytes:
    tensors = load(data)
    change(tensors)
    return save(tensors)


# ── int8 weights ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_int8_weights_answer_nearly_alike_and_the_loader_says_so(
    make_loader: Load, tokenizer: Tokenizer, closing: list[ServedModel]
) -> None:
    loader = make_loader(quantization="int8")
    assert (loader.weights, loader.dtype) == ("int8", torch.bfloat16)
    closing += [loader.build("base", None), make_loader().build("base", None)]
    small, whole = (complete(s.engine, GenerationRequest((1, 40, 2), Sampling(max_tokens=1))) for s in closing)
    assert small[1][0].logprob == pytest.approx(whole[1][0].logprob, abs=1.0)
    assert small[1][0].logprob != whole[1][0].logprob


@pytest.mark.parametrize("without", [{"kernels": None}, {"dtype": "float32"}])
def test_int8_weights_without_the_kernels_are_an_error_that_names_the_setting(
    make_loader: Load, without: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"int8 weights need the CPU kernels: .*; set HONED_QUANTIZATION to none"):
        make_loader(quantization="int8", **without)


# ── which runner ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_cpu_gets_the_kernels_and_bfloat16(
    make_loader: Load, tokenizer: Tokenizer, closing: list[ServedModel], dtype: str
) -> None:
    loader = make_loader(dtype=dtype)
    assert (loader.slow_because, loader.dtype) == (None, torch.bfloat16)
    closing += [loader.build("base", None), make_loader(dtype="float32").build("base", None)]
    native, reference = (complete(s.engine, GenerationRequest((1, 40, 2), Sampling(max_tokens=1))) for s in closing)
    assert native[1][0].logprob == pytest.approx(reference[1][0].logprob, abs=0.5)
    assert native[1][0].logprob != reference[1][0].logprob  # or the reference answered


@pytest.mark.parametrize(
    ("changes", "reason", "dtype"),
    [
        ({"dtype": "float32"}, "float32 was asked for", torch.float32),
        ({"dtype": "bfloat16", "kernels": None}, "kernels are switched off", torch.bfloat16),
        ({"dtype": "float32", "kernels": None}, "float32 was asked for", torch.float32),
    ],
)
def test_who_asks_for_the_slow_runner_gets_it_and_is_told(
    make_loader: Load, tokenizer: Tokenizer, closing: list[ServedModel],
    changes: dict[str, Any], reason: str, dtype: torch.dtype,
) -> None:  # fmt: skip
    loader = make_loader(**changes)
    assert (loader.slow_because, loader.dtype) == (reason, dtype)
    closing.append(loader.build("base", None))
    assert len(answer(closing[0], tokenizer)) == 12


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"CXX": "", "PATH": ""}, "no C++ compiler here (c++, g++, clang++); install g++ 12"),
        ({"CXX": "/nowhere/clang++-99"}, "no C++ compiler here (/nowhere/clang++-99)"),
        ({"CXX": shutil.which("false") or "/bin/false"}, "false does not run"),
    ],
)
def test_without_a_compiler_it_answers_slowly_and_says_what_is_missing(
    make_loader: Load, tokenizer: Tokenizer, closing: list[ServedModel],
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loader = make_loader(dtype="bfloat16")
    assert told in str(loader.slow_because)
    assert loader.dtype == torch.bfloat16
    closing.append(loader.build("base", None))
    assert len(answer(closing[0], tokenizer)) == 12


def test_a_directory_for_kernels_that_cannot_be_made_is_told_and_does_not_stop_it(
    make_loader: Load, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in str(make_loader(kernels=tmp_path / "file" / "kernels").slow_because)


def test_a_kept_file_that_is_no_library_is_made_again(make_loader: Load, kernels: Path, tmp_path: Path) -> None:
    (own := tmp_path / "kernels").mkdir(mode=0o700)
    (kept := own / next(kernels.iterdir()).name).write_bytes(b"half of a library")
    assert make_loader(kernels=own).slow_because is None
    assert kept.read_bytes()[:4] == b"\x7fELF"


def test_a_base_the_kernels_cannot_run_is_served_slowly_with_the_precision_of_its_files(
    make_loader: Load, base_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    def refine(tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {name: tensor.float() * 1.001 for name, tensor in tensors.items()}

    files = {WEIGHTS: changed(base_files[WEIGHTS], refine)}
    files["config.json"] = base_files["config.json"].replace(b'"silu"', b'"gelu"')
    loader = make_loader(files)
    assert "only the SiLU activation" in str(loader.slow_because)
    assert loader.dtype == torch.float32
    assert torch.equal(loader._base.get_parameter("lm_head.weight"), load(files[WEIGHTS])["lm_head.weight"])


# ── what it builds ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("dtype", "block_bytes"), [("bfloat16", 4096), ("float32", 8192)])
def test_blocks_follow_the_cache_setting_and_hold_one_context_at_least(
    make_loader: Load, dtype: str, block_bytes: int
) -> None:  # a block: keys and values of 2 layers, 2 heads of 16 numbers, 16 tokens
    assert make_loader(dtype=dtype, cache_mb=8).num_blocks == (8 << 20) // block_bytes
    assert make_loader(dtype=dtype, cache_mb=24).num_blocks == (24 << 20) // block_bytes
    assert make_loader(dtype=dtype, cache_mb=0).num_blocks == blocks_for(1024 + 1) == 65
    assert make_loader(dtype=dtype, cache_mb=0, max_context=64).num_blocks == 5


@pytest.mark.parametrize("length", [64, 63, 1])
def test_a_prompt_as_long_as_the_context_lets_it_be_is_answered(
    make_loader: Load, closing: list[ServedModel], length: int
) -> None:
    closing.append(make_loader(cache_mb=0, max_context=65).build("base", None))
    sampling = Sampling(max_tokens=100, ignore_eos=True)
    _, tokens, end = complete(closing[0].engine, GenerationRequest((40,) * length, sampling))
    assert (len(tokens), end.error) == (65 - length, None)


def test_the_base_and_a_checkpoint_answer_side_by_side_each_its_own_way(
    make_loader: Load, tokenizer: Tokenizer, closing: list[ServedModel]
) -> None:
    loader = make_loader()
    closing += [loader.build("base", None), loader.build(CHECKPOINT, adapter_files())]
    base, checkpoint = (answer(served, tokenizer) for served in closing)
    assert base != checkpoint
    assert [answer(served, tokenizer) for served in (*closing, *closing)] == [base, checkpoint] * 2
    closing[1].engine.close(drain_seconds=0)
    closing.append(loader.build(CHECKPOINT, adapter_files()))
    assert [answer(closing[0], tokenizer), answer(closing[2], tokenizer)] == [base, checkpoint]


@pytest.mark.parametrize("layer", ["self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"])
def test_an_adapter_with_nan_weights_in_one_layer_fails_its_smoke_test(make_loader: Load, layer: str) -> None:
    def break_one(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"base_model.model.model.layers.1.{layer}.lora_A.weight"][0, 0] = float("nan")

    adapter = adapter_files()
    with pytest.raises(LoadError, match=r"checkpoint c0ffeec0ffee failed its smoke test: .*NaN or infinite logits"):
        make_loader().build(CHECKPOINT, adapter | {ADAPTER_WEIGHTS: changed(adapter[ADAPTER_WEIGHTS], break_one)})


@pytest.mark.parametrize("files", [{}, {ADAPTER_WEIGHTS: b"no"}], ids=["no files", "no tensors"])
def test_an_adapter_that_is_none_is_refused_and_the_base_does_not_answer_for_it(
    make_loader: Load, files: dict[str, bytes]
) -> None:
    adapter = adapter_files() | files if files else {}
    with pytest.raises(LoadError, match="checkpoint c0ffeec0ffee does not load"):
        make_loader().build(CHECKPOINT, adapter)


# ── which models ─────────────────────────────────────────────────────────────────────────────────────────────────────


def small(kind: str = "llama", **changes: Any) -> PreTrainedModel:
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=50))
    values = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 1}
    values |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    kinds = {
        "llama": (LlamaForCausalLM, LlamaConfig),
        "mistral": (MistralForCausalLM, MistralConfig),
        "qwen2": (Qwen2ForCausalLM, Qwen2Config),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    }
    model, config = kinds[kind]
    return model(config(**(values | changes)))


@pytest.mark.parametrize(
    "fine",
    [{}, {"kind": "mistral", "sliding_window": None}, {"head_dim": 256}, {"kind": "qwen2"}, {"kind": "qwen3"}],
)
def test_nothing_stands_against_a_model_that_fits(fine: dict[str, Any]) -> None:
    assert why_not(small(**fine)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "gpt2"}, "Llama's architecture, and this is gpt2"),
        ({"kind": "qwen2", "use_sliding_window": True, "sliding_window": 32}, "this is qwen2"),
        ({"kind": "mistral", "sliding_window": 32}, "this is mistral"),
        ({"attention_bias": True}, "biases of queries, keys and values only"),
        ({"mlp_bias": True}, "biases of queries, keys and values only"),
        ({"hidden_act": "gelu"}, "only the SiLU activation"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "type 'dynamic'"),
        (
            {
                "rope_parameters": {
                    "rope_type": "linear",
                    "rope_theta": 1e4,
                    "factor": 1.0,
                    "partial_rotary_factor": 0.25,
                }
            },
            "turn whole heads",
        ),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "as many of them for each key"),
        ({"hidden_size": 48}, "widths in steps of 32 and 16, got 48, 12, 48"),
        ({"head_dim": 24}, "got 64, 24, 48"),
        ({"head_dim": 272}, "got 64, 272, 48"),
        ({"intermediate_size": 40}, "got 64, 16, 40"),
    ],
)
def test_a_model_the_kernels_cannot_run_is_told_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    assert reason in str(why_not(small(**changes)))
