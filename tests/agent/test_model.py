"""The network from verified bytes, and adapters merged into copies of it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from transformers import AutoModelForCausalLM, PreTrainedModel

from agent.model import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WEIGHTS,
    check_portable,
    choose_device,
    choose_dtype,
    free_bytes,
    load_base,
    merge_adapter,
)
from tests.fakes import adapter_files

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 40, 41, 42, 2]])
PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def with_config(**changes: Any) -> dict[str, bytes]:
    files = adapter_files()
    return files | {ADAPTER_CONFIG: json.dumps(json.loads(files[ADAPTER_CONFIG]) | changes).encode()}


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> dict[str, bytes]:
    """The adapter after `change` was at its tensors."""
    files = adapter_files()
    tensors = load(files[ADAPTER_WEIGHTS])
    change(tensors)
    return files | {ADAPTER_WEIGHTS: save(tensors)}


def with_tensors(files: dict[str, bytes], change: Callable[[dict[str, torch.Tensor]], object]) -> dict[str, bytes]:
    tensors = load(files[WEIGHTS])
    change(tensors)
    return files | {WEIGHTS: save(tensors)}


# ── the base ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_base_is_the_model_that_transformers_loads_from_the_directory(
    base: PreTrainedModel, tiny_llama: Path
) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    assert torch.equal(logits(base), logits(theirs))
    assert not base.training
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_the_base_is_built_from_the_bytes_and_not_from_the_directory(
    base: PreTrainedModel, base_files: dict[str, bytes]
) -> None:
    model = load_base(base_files, Path("/nowhere"), CPU, torch.float32)
    assert torch.equal(logits(model), logits(base))


def test_a_base_that_lacks_a_tensor_is_refused_by_its_name(base_files: dict[str, bytes], tiny_llama: Path) -> None:
    files = with_tensors(base_files, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ValueError, match=r"does not fit its config\.json.*layers\.1\.mlp\.up_proj\.weight"):
        load_base(files, tiny_llama, CPU, torch.float32)


def test_a_base_with_a_tensor_too_many_is_refused_by_its_name(base_files: dict[str, bytes], tiny_llama: Path) -> None:
    files = with_tensors(base_files, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"model\.extra\.weight"):
        load_base(files, tiny_llama, CPU, torch.float32)


def test_a_base_with_a_tensor_of_another_shape_is_refused(base_files: dict[str, bytes], tiny_llama: Path) -> None:
    files = with_tensors(base_files, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(7)}))
    with pytest.raises(ValueError, match=r"does not fit its config\.json.*model\.norm\.weight"):
        load_base(files, tiny_llama, CPU, torch.float32)


def test_weights_in_several_files_are_one_model(base: PreTrainedModel, base_files: dict[str, bytes]) -> None:
    tensors = load(base_files[WEIGHTS])
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": save({name: tensors[name] for name in names[:9]}),
        "model-00002-of-00002.safetensors": save({name: tensors[name] for name in names[9:]}),
    }
    rest = {name: data for name, data in base_files.items() if name != WEIGHTS}
    assert torch.equal(logits(load_base(rest | shards, Path("/nowhere"), CPU, torch.float32)), logits(base))


def test_memory_of_a_processor_is_told() -> None:
    assert free_bytes(CPU) > 1 << 20


def test_on_a_gpu_attention_is_not_planned_anew_for_each_length(base: PreTrainedModel) -> None:
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_device_that_is_not_here_is_refused_and_not_replaced_by_the_cpu() -> None:
    with pytest.raises(ValueError, match="device 'tpu:0' is not available here; set HONED_DEVICE to auto or cpu"):
        choose_device("tpu:0")
    assert choose_device("cpu") == CPU


def test_a_named_number_format_is_taken_and_auto_takes_one_the_machine_computes_in() -> None:
    assert choose_dtype(CPU, "bfloat16") == torch.bfloat16
    assert choose_dtype(CPU, "float32") == torch.float32
    assert choose_dtype(CPU) in (torch.bfloat16, torch.float32)
    assert choose_dtype(torch.device("cuda")) == torch.bfloat16


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def peft_merged(tiny_llama: Path, files: dict[str, bytes], directory: Path) -> PreTrainedModel:
    from peft import PeftModel

    for name, data in files.items():
        (directory / name).write_bytes(data)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    return PeftModel.from_pretrained(plain, str(directory)).merge_and_unload().eval()


def test_a_merged_adapter_is_what_peft_itself_merges(base: PreTrainedModel, tiny_llama: Path, tmp_path: Path) -> None:
    files = adapter_files()
    ours, theirs = merge_adapter(base, files), peft_merged(tiny_llama, files, tmp_path)
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-5), name
    assert torch.allclose(logits(ours), logits(theirs), atol=1e-3)
    assert not torch.allclose(logits(ours), logits(base), atol=0.1)


def test_merging_leaves_the_base_as_it_was(base: PreTrainedModel) -> None:
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    merge_adapter(base, adapter_files())
    assert all(torch.equal(before[name], parameter) for name, parameter in base.named_parameters())


def test_an_adapter_of_a_few_layers_changes_just_those(base: PreTrainedModel) -> None:
    def keep_one(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if not name.startswith(PREFIX)]:
            del tensors[name]

    merged = merge_adapter(base, with_weights(keep_one))
    changed = [
        name
        for (name, ours), theirs in zip(merged.named_parameters(), base.parameters(), strict=True)
        if not torch.equal(ours, theirs)
    ]
    assert changed == ["model.layers.0.self_attn.q_proj.weight"]


def test_merging_into_half_precision_rounds_once(base_files: dict[str, bytes], tiny_llama: Path) -> None:
    half = load_base(base_files, tiny_llama, CPU, torch.bfloat16)
    files = adapter_files()
    tensors = load(files[ADAPTER_WEIGHTS])
    delta = 2.0 * (tensors[f"{PREFIX}.lora_B.weight"] @ tensors[f"{PREFIX}.lora_A.weight"])
    before = half.get_parameter("model.layers.0.self_attn.q_proj.weight")
    after = merge_adapter(half, files).get_parameter("model.layers.0.self_attn.q_proj.weight")
    assert torch.equal(after, (before.float() + delta).to(torch.bfloat16))


def test_tied_weights_load_without_a_head_and_stay_tied_after_a_merge(
    base_files: dict[str, bytes], tiny_llama: Path
) -> None:
    config = json.loads(base_files["config.json"]) | {"tie_word_embeddings": True}
    files = base_files | {"config.json": json.dumps(config).encode()}
    files = with_tensors(files, lambda tensors: tensors.pop("lm_head.weight"))
    tied = load_base(files, tiny_llama, CPU, torch.float32)
    merged = merge_adapter(tied, adapter_files())
    for model in (tied, merged):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(merged.get_output_embeddings().weight, tied.get_output_embeddings().weight)
    assert merged.get_output_embeddings().weight is not tied.get_output_embeddings().weight
    assert not torch.allclose(logits(merged), logits(tied), atol=0.1)


def widen(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{PREFIX}.lora_B.weight"] = torch.zeros((33, 2))


def other_rank(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{PREFIX}.lora_A.weight"] = torch.zeros((3, 32))


def flat(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{PREFIX}.lora_A.weight"] = torch.zeros(32)


def foreign(tensors: dict[str, torch.Tensor]) -> None:
    for side in "AB":
        tensors[f"base_model.model.transformer.h.0.lora_{side}.weight"] = tensors.pop(f"{PREFIX}.lora_{side}.weight")


def container(tensors: dict[str, torch.Tensor]) -> None:
    for side in "AB":
        name = f"base_model.model.model.layers.0.self_attn.lora_{side}.weight"
        tensors[name] = tensors.pop(f"{PREFIX}.lora_{side}.weight")


def unpaired(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{PREFIX}.lora_magnitude"] = tensors.pop(f"{PREFIX}.lora_B.weight")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (widen, "layers.0.self_attn.q_proj"),
        (other_rank, "layers.0.self_attn.q_proj"),
        (flat, "layers.0.self_attn.q_proj"),
        (foreign, "transformer.h.0"),
        (container, "layers.0.self_attn"),
        (unpaired, "layers.0.self_attn.q_proj"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_with_the_name_of_the_layer(
    base: PreTrainedModel, change: Callable[[dict[str, torch.Tensor]], None], named: str
) -> None:
    with pytest.raises(ValueError, match=f"adapter layer base_model.model.(model.)?{named} does not fit the base"):
        merge_adapter(base, with_weights(change))


def test_an_adapter_with_more_than_two_tensors_a_layer_is_refused(base: PreTrainedModel) -> None:
    files = with_weights(lambda tensors: tensors.update({f"{PREFIX}.lora_magnitude_vector": torch.zeros(2)}))
    with pytest.raises(ValueError, match="holds 29 tensors for 14 layers; expected two a layer"):
        merge_adapter(base, files)


def test_an_adapter_without_tensors_is_refused(base: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="holds 0 tensors for 0 layers"):
        merge_adapter(base, adapter_files() | {ADAPTER_WEIGHTS: save({})})


@pytest.mark.parametrize("data", [b"", b"not safetensors", struct.pack("<Q", 1 << 40) + b"{}"])
def test_an_unreadable_adapter_is_refused_by_the_name_of_its_file(base: PreTrainedModel, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is not readable safetensors"):
        merge_adapter(base, adapter_files() | {ADAPTER_WEIGHTS: data})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("use_rslora", True),
        ("modules_to_save", ["lm_head"]),
        ("alpha_pattern", {"q_proj": 4}),
        ("rank_pattern", {"q_proj": 4}),
        ("trainable_token_indices", [1]),
    ],
)
def test_an_adapter_outside_the_portable_profile_is_refused_with_the_name_of_the_option(
    base: PreTrainedModel, option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"adapter option {option}=.* is outside the portable LoRA profile"):
        merge_adapter(base, with_config(**{option: value}))


@pytest.mark.parametrize("changes", [{"peft_type": "IA3"}, {"peft_type": None}, {"bias": "all"}])
def test_an_adapter_of_another_kind_is_refused(base: PreTrainedModel, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not portable LoRA"):
        merge_adapter(base, with_config(**changes))


@pytest.mark.parametrize("changes", [{"r": 0}, {"r": None}, {"lora_alpha": "4"}, {"r": -2}])
def test_an_adapter_without_a_sensible_rank_and_alpha_is_refused(
    base: PreTrainedModel, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"adapter rank .* and alpha .* are not the numbers LoRA needs"):
        merge_adapter(base, with_config(**changes))


def test_the_scale_is_alpha_over_rank() -> None:
    assert check_portable({"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none"}) == 2.0
