"""The adapter directory a training run leaves:
PEFT's files in the portable LoRA profile, without this machine's paths.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load
from safetensors.torch import save as save_tensors

from agent.model import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_portable
from agent.scope import SCOPE_FILE, Scope, read_scope

FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def save(model: Any, directory: Path, base_id: str) -> None:
    """Write a PEFT model's adapter: exactly two files, float32 safetensors, base named by digest."""
    model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    for path in directory.iterdir():
        if path.name not in FILES:  # PEFT's model card is a template; the manifest says it better
            path.unlink()
    path = directory / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_id
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set: sorted, equal runs give equal bytes
    check_portable(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(directory: Path) -> dict[str, bytes]:
    """The adapter's files as bytes, for the child processes; the daemon reads sealed ones through the store."""
    return {name: (directory / name).read_bytes() for name in FILES}


def scaled(files: Mapping[str, bytes], share: float) -> dict[str, bytes]:
    """The adapter that adds `share` of what this one adds to the base; forgetting falls faster than what was learnt."""
    tensors = load(files[ADAPTER_WEIGHTS])
    less = {name: value * share if ".lora_B." in name else value for name, value in tensors.items()}
    return {**files, ADAPTER_WEIGHTS: save_tensors(less, {"format": "pt"})}


def scope_in(directory: Path) -> Scope | None:
    """The scope beside an adapter, or in the directory of its run; None when it answers everywhere."""
    path = directory / SCOPE_FILE
    return read_scope({SCOPE_FILE: path.read_bytes()}) if path.exists() else None
