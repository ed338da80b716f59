"""A Llama's weights as the kernels want them: bfloat16, packed by panels of 32 outputs (see `gemm.h`)."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import PreTrainedModel

PANEL = 32
LANES = 16
MAX_HEAD_DIM = 256
ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # whose angles depend on the position alone

Weight = Callable[[torch.nn.Linear], torch.Tensor]


def _own(linear: torch.nn.Linear) -> torch.Tensor:
    weight: torch.Tensor = linear.weight.data
    return weight


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer. Matrices are packed; norms are float32 (H,)."""

    qkv: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor  # each panel 16 gates and the 16 values they gate
    down: torch.Tensor
    norm_in: torch.Tensor
    norm_post: torch.Tensor


@dataclass(frozen=True, slots=True)
class PackedModel:
    """All weights, the tables of the rotary embedding (positions, head_dim / 2), and the numbers of the network."""

    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    epsilon: float
    layers: tuple[PackedLayer, ...]
    embedding: torch.Tensor  # (V, H) bfloat16, as it is
    head: torch.Tensor
    norm: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Memory that the packed matrices take."""
        tensors = [getattr(layer, field.name) for layer in self.layers for field in fields(layer)]
        return sum(tensor.nbytes for tensor in (*tensors, self.head))


def why_not(model: PreTrainedModel) -> str | None:
    """Why the kernels cannot run this model; None when they can."""
    c: Any = model.config
    kind = c.model_type
    if kind not in ("llama", "mistral") or getattr(c, "sliding_window", None):
        return f"the kernels run Llama's architecture, and this is {kind}"
    if getattr(c, "attention_bias", False) or getattr(c, "mlp_bias", False) or c.hidden_act != "silu":
        return "the kernels know no biases and only the SiLU activation"
    rope = (c.rope_parameters or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"the kernels do not know rotary embeddings of type {rope!r}"
    dim = model.model.layers[0].self_attn.head_dim
    if c.hidden_size % PANEL or dim % LANES or dim > MAX_HEAD_DIM or c.intermediate_size % LANES:
        widths = f"{c.hidden_size}, {dim}, {c.intermediate_size}"
        return f"the kernels want widths in steps of {PANEL} and {LANES}, got {widths}"
    return None


def pack(model: PreTrainedModel, max_positions: int, weight: Weight | None = None) -> PackedModel:
    """Pack a model that `why_not` has nothing against. `weight` gives a layer's matrix if it is not the model's own."""
    weight = weight or _own
    inner: Any = model.model
    c: Any = model.config
    dim = inner.layers[0].self_attn.head_dim
    positions = torch.arange(max_positions)[None]
    cosine, sine = inner.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
    return PackedModel(
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        head_dim=dim,
        inner=c.intermediate_size,
        epsilon=c.rms_norm_eps,
        layers=tuple(_pack_layer(layer, weight) for layer in inner.layers),
        embedding=inner.embed_tokens.weight.to(torch.bfloat16).contiguous(),
        head=_panels(weight(model.lm_head)),
        norm=inner.norm.weight.float().clone(),
        cosine=cosine[0, :, : dim // 2].float().contiguous(),
        sine=sine[0, :, : dim // 2].float().contiguous(),
    )


def _pack_layer(layer: Any, weight: Weight) -> PackedLayer:
    attention, mlp = layer.self_attn, layer.mlp
    gate, up = weight(mlp.gate_proj), weight(mlp.up_proj)
    width = gate.shape[1]
    paired = torch.stack([gate.view(-1, LANES, width), up.view(-1, LANES, width)], dim=1)
    return PackedLayer(
        qkv=_panels(torch.cat([weight(attention.q_proj), weight(attention.k_proj), weight(attention.v_proj)])),
        out=_panels(weight(attention.o_proj)),
        gate_up=_panels(paired.reshape(-1, width)),
        down=_panels(weight(mlp.down_proj)),
        norm_in=layer.input_layernorm.weight.float().clone(),
        norm_post=layer.post_attention_layernorm.weight.float().clone(),
    )


def _panels(matrix: torch.Tensor) -> torch.Tensor:
    """(N, K) to (N / 32, K / 2, 32, 2), zeros where N ends within a panel. Int32 words, each a pair of inputs."""
    outputs, inputs = matrix.shape
    matrix = torch.nn.functional.pad(matrix.to(torch.bfloat16), (0, 0, 0, -outputs % PANEL))
    pairs = matrix.contiguous().view(torch.int32)  # pairs move as one word, five times faster than alone
    return pairs.view(-1, PANEL, inputs // 2).transpose(1, 2).contiguous()
