"""A GGUF file to a transformers directory in bfloat16 safetensors, once. Knows nothing of where either came from."""

import struct
from pathlib import Path


def gguf_to_safetensors(gguf: Path, directory: Path) -> None:
    """Write config, weights, tokenizer and chat template of `gguf` into `directory`;
    ValueError when it can't be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    except (struct.error, LookupError) as error:  # how the reader stumbles over a file that was cut short
        raise ValueError(f"{gguf.name} is damaged or not whole: {error}") from error
    if not tokenizer.chat_template:
        raise ValueError(f"{gguf.name} has no chat template; choose an instruction-tuned model")
    model = model.to(torch.bfloat16)
    # The weights are plain now: the tag of their former packing would make transformers refuse to save or load them.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.config._name_or_path = ""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
