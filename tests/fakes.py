"""Small real fakes: a 2-layer random Llama with a byte tokenizer, a sentence embedder, LoRA adapters, a set clock."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HIDDEN = 64


@dataclass(slots=True)
class SetClock:
    """A clock that stands still until it is told otherwise."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class WordEmbedder:
    """A direction a word, and of a text the mean of its words': texts that share words are near each other."""

    dim = 32

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.array([sum(map(self._direction, text.split())) for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def count(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    def _direction(self, word: str) -> np.ndarray:
        return np.random.default_rng(list(word.encode())).normal(size=self.dim)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the three specials of the default model."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: number for number, text in enumerate([*SPECIALS, *alphabet])}
    inner = Tokenizer(BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_tiny_llama(directory: Path, *, seed: int = 0, context: int = 1024) -> Path:
    """A random Llama whose answers are printable ASCII most of the time; bfloat16 safetensors on disk."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    is_printable = torch.tensor(
        [len(text) == 1 and text.isascii() for text in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    )
    model.lm_head.weight.data[~is_printable] *= 0.02
    directory.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_tiny_embedder(directory: Path) -> Path:
    """A sentence-transformers directory with a one-layer random BERT over bytes."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    inner = directory.parent / f"{directory.name}-bert"
    BertModel(config).save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    SentenceTransformer(modules=[Transformer(str(inner)), Pooling(16)], device="cpu").save(
        str(directory), create_model_card=False
    )
    return directory


def adapter_files(*, seed: int = 1, rank: int = 2, scale: float = 0.5) -> dict[str, bytes]:
    """A random adapter of the portable profile that fits the tiny Llama."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (HIDDEN, 32), "v_proj": (HIDDEN, 32), "o_proj": (HIDDEN, HIDDEN)}
    sizes |= {"gate_proj": (HIDDEN, 64), "up_proj": (HIDDEN, 64), "down_proj": (64, HIDDEN)}
    tensors = {}
    for layer in range(2):
        for name, (width_in, width_out) in sizes.items():
            block = "self_attn" if name in LAYERS[:4] else "mlp"
            prefix = f"base_model.model.model.layers.{layer}.{block}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn((rank, width_in), generator=generator) * scale
            tensors[f"{prefix}.lora_B.weight"] = torch.randn((width_out, rank), generator=generator) * scale
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none", "target_modules": sorted(LAYERS)}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": save_safetensors(tensors),
    }
