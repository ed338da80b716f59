"""A GGUF file to a plain model directory, on a tiny one written with the `gguf` package."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from agent.convert import gguf_to_safetensors
from agent.model import load_base
from agent.tokenizer import Tokenizer
from tests.fakes import SPECIALS, TEMPLATE, byte_tokenizer

WIDTH, INNER, HEADS = 32, 32, 4
MERGES = ["h i"]


def write_gguf(path: Path, *, template: str | None = TEMPLATE) -> dict[str, np.ndarray]:
    """A random one-layer Llama over bytes, quantized to Q4_1; returns what its weights are worth after that."""
    random = np.random.default_rng(0)
    words = [*byte_tokenizer().convert_ids_to_tokens(range(len(byte_tokenizer()))), "hi"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    kinds = [gguf.TokenType.CONTROL if word in SPECIALS else gguf.TokenType.NORMAL for word in words]
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template:
        writer.add_chat_template(template)
    shapes = {"token_embd": (len(words), WIDTH), "output": (len(words), WIDTH)}
    shapes |= {f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (INNER, WIDTH), "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER)}
    kept = {}
    for name, shape in shapes.items():
        packed = gguf.quants.quantize(
            random.normal(size=shape).astype(np.float32) * 0.3, gguf.GGMLQuantizationType.Q4_1
        )
        kept[name] = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    source, directory = tmp_path_factory.mktemp("gguf"), tmp_path_factory.mktemp("converted")
    kept = write_gguf(source / "tiny.gguf")
    gguf_to_safetensors(source / "tiny.gguf", directory)
    return directory, kept


def test_conversion_leaves_a_directory_of_plain_files_that_does_not_name_where_it_came_from(
    converted: tuple[Path, dict[str, np.ndarray]],
) -> None:
    directory, _ = converted
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert all(name.endswith((".json", ".safetensors", ".jinja")) for name in names)
    config = (directory / "config.json").read_text()
    assert "quantization_config" not in config
    assert "gguf" not in config


def test_the_converted_weights_are_the_unpacked_ones_rounded_once(
    converted: tuple[Path, dict[str, np.ndarray]],
) -> None:
    directory, kept = converted
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype == torch.bfloat16
    pairs = {
        "model.embed_tokens.weight": "token_embd",
        "lm_head.weight": "output",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(model.get_parameter(ours), torch.tensor(kept[theirs]).to(torch.bfloat16)), ours


def test_the_converted_model_loads_from_its_bytes_and_answers(converted: tuple[Path, dict[str, np.ndarray]]) -> None:
    directory, _ = converted
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    model = load_base(files, directory, torch.device("cpu"), torch.float32)
    ids = Tokenizer(directory).chat_ids([{"role": "user", "content": "hi"}])
    assert torch.isfinite(model(input_ids=torch.tensor([ids])).logits).all()


def test_the_converted_tokenizer_knows_bytes_merges_specials_and_the_end(
    converted: tuple[Path, dict[str, np.ndarray]],
) -> None:
    tokenizer = Tokenizer(converted[0])
    assert len(tokenizer.ids("hi")) == 1
    assert tokenizer.text(tokenizer.ids("héllo 😀")) == "héllo 😀"
    assert tokenizer.eos_ids == {2}
    assert tokenizer.chat_ids([{"role": "user", "content": "hi"}])[0] == 1


def test_a_model_without_a_chat_template_is_refused_with_the_next_step(tmp_path: Path) -> None:
    write_gguf(tmp_path / "bare.gguf", template=None)
    with pytest.raises(ValueError, match=r"bare\.gguf has no chat template; choose an instruction-tuned model"):
        gguf_to_safetensors(tmp_path / "bare.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"not a GGUF file at all" * 10)
    with pytest.raises(ValueError, match="GGUF"):
        gguf_to_safetensors(tmp_path / "broken.gguf", tmp_path / "out")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
def test_a_gguf_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    write_gguf(tmp_path / "whole.gguf")
    data = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"cut\.gguf is damaged or not whole|cannot reshape array"):
        gguf_to_safetensors(tmp_path / "cut.gguf", tmp_path / "out")
