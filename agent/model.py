"""The network in memory: loaded from verified bytes, with an adapter merged in.
Knows nothing of requests or files' places.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedModel

WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def choose_device(wanted: str = "auto") -> torch.device:
    """`auto` takes cuda, then mps, then cpu; a named device that is missing is an error, never a silent CPU."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, present in has.items() if present))
    if not has.get(wanted.split(":", maxsplit=1)[0], False):
        raise ValueError(f"device {wanted!r} is not available here; set HONED_DEVICE to auto or cpu")
    return torch.device(wanted)


def choose_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """`auto`: bfloat16 where the machine computes in it, float32 where it would be emulated (slower than float32)."""
    if wanted != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[wanted]
    if device.type != "cpu":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def free_bytes(device: torch.device) -> int:
    """Memory that is free there."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it
        return int(torch.cuda.mem_get_info(device)[0]) + int(idle)
    return int(psutil.virtual_memory().available)


def load_base(files: Mapping[str, bytes], directory: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Build the base from the bytes that were verified (`directory` only gives the configuration its name)."""
    with TemporaryDirectory(prefix="honed-config-") as scratch:
        # transformers reads configurations from files only; these are the verified bytes, not the directory's.
        for name in ("config.json", "generation_config.json"):
            if name in files:
                (Path(scratch) / name).write_bytes(files[name])
        config = AutoConfig.from_pretrained(scratch, trust_remote_code=False)
    state: dict[str, torch.Tensor] = {}
    for name in sorted(files):
        if name.endswith(".safetensors"):
            state.update(load_safetensors(files[name]))
    model, info = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told by name below, like the rest
    )
    if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
        raise ValueError(f"{directory} does not fit its config.json: {info}")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for each length: over half of an answer's time
    loaded: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return loaded


class Adapter:
    """A portable LoRA adapter, checked against the base it is to change: W + (alpha / r) · B A, computed in float32."""

    def __init__(self, base: PreTrainedModel, files: Mapping[str, bytes]) -> None:
        """ValueError when the adapter is not of the portable profile or does not fit the base."""
        config = json.loads(files[ADAPTER_CONFIG])
        if not isinstance(config, dict):
            raise ValueError(f"{ADAPTER_CONFIG} holds {type(config).__name__}, expected an object")
        self._scale = check_portable(config)
        tensors = _tensors(files[ADAPTER_WEIGHTS])
        names = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
        if not names or len(tensors) != 2 * len(names):
            raise ValueError(
                f"{ADAPTER_WEIGHTS} holds {len(tensors)} tensors for {len(names)} layers; expected two a layer"
            )
        modules = dict(base.named_modules())
        self._pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._names: dict[torch.nn.Module, str] = {}
        for name in sorted(names):
            a, b = tensors[f"{name}.lora_A.weight"], tensors.get(f"{name}.lora_B.weight")
            place = name.removeprefix("base_model.model.")
            layer: Any = modules.get(place)
            if b is None or not isinstance(layer, torch.nn.Linear) or not _fits(a, b, layer, config["r"]):
                raise ValueError(f"adapter layer {name} does not fit the base; was it trained on another model?")
            self._pairs[place] = a, b
            self._names[layer] = place

    def changes(self) -> list[str]:
        """Names of the layers it changes."""
        return list(self._pairs)

    def merged(self, layer: torch.nn.Linear, name: str | None = None) -> torch.Tensor:
        """The weight of a base's layer with the adapter in it; as it is where the adapter changes nothing."""
        place = name or self._names.get(layer)
        weight: torch.Tensor = layer.weight.data
        if place is None:
            return weight
        a, b = (tensor.to(weight.device, torch.float32) for tensor in self._pairs[place])
        return (weight.float() + self._scale * (b @ a)).to(weight.dtype)


def merge_adapter(base: PreTrainedModel, files: Mapping[str, bytes]) -> PreTrainedModel:
    """A private copy of the base with an adapter merged in. ValueError as `Adapter` gives it."""
    adapter = Adapter(base, files)
    model: PreTrainedModel = copy.deepcopy(base)
    modules: dict[str, Any] = dict(model.named_modules())
    for name in adapter.changes():
        merged = adapter.merged(modules[name], name)  # a parameter of its own: a tied head must not change its twin
        modules[name].weight = torch.nn.Parameter(merged, requires_grad=False)
    return model


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{ADAPTER_WEIGHTS} is not readable safetensors: {error}") from error
    return tensors


def _fits(a: torch.Tensor, b: torch.Tensor, layer: torch.nn.Linear, rank: int) -> bool:
    return tuple(a.shape) == (rank, layer.in_features) and tuple(b.shape) == (layer.out_features, rank)


def check_portable(config: Mapping[str, Any]) -> float:
    """The scale alpha / r of an adapter in the portable LoRA profile;
    ValueError names the option that is outside it.
    """
    for option in (
        "use_dora",
        "use_rslora",
        "modules_to_save",
        "alpha_pattern",
        "rank_pattern",
        "trainable_token_indices",
    ):
        if config.get(option):
            raise ValueError(f"adapter option {option}={config[option]!r} is outside the portable LoRA profile")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise ValueError(
            f"adapter type {config.get('peft_type')!r} with bias {config.get('bias')!r} is not portable LoRA"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"adapter rank {rank!r} and alpha {alpha!r} are not the numbers LoRA needs")
    return alpha / rank
