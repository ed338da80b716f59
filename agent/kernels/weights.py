"""A Llama's weights as the kernels want them: bfloat16 or int8, packed by panels of 32 outputs (see `gemm.h`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.quantization import quantise

PANEL = 32
LANES = 16
MAX_HEAD_DIM = 256
ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # whose angles depend on the position alone

Weight = Callable[[torch.nn.Linear], torch.Tensor]


def _own(linear: torch.nn.Linear) -> torch.Tensor:
    weight: torch.Tensor = linear.weight.data
    return weight


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Weights of one product, (N / 32, K / 2, 32, 2): bfloat16, or int8 and then with `scales` (N,)."""

    values: torch.Tensor
    scales: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer. Norms and biases are float32, None where the model has none."""

    qkv: PackedMatrix
    out: PackedMatrix
    gate_up: PackedMatrix  # each panel 16 gates and the 16 values they gate
    down: PackedMatrix
    norm_in: torch.Tensor
    norm_post: torch.Tensor
    bias: torch.Tensor | None  # of queries, keys and values
    norm_query: torch.Tensor | None  # (head_dim,)
    norm_key: torch.Tensor | None


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
    head: PackedMatrix
    norm: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor


def why_not(model: PreTrainedModel) -> str | None:
    """Why the kernels cannot run this model; None when they can."""
    c: Any = model.config
    kind = c.model_type
    if kind not in ("llama", "mistral", "qwen2", "qwen3") or getattr(c, "sliding_window", None):
        return f"the kernels run Llama's architecture, and this is {kind}"
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    plain = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj, model.lm_head)
    if any(linear.bias is not None for linear in plain) or c.hidden_act != "silu":
        return "the kernels know biases of queries, keys and values only, and only the SiLU activation"
    rope = (c.rope_parameters or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"the kernels do not know rotary embeddings of type {rope!r}"
    dim = attention.head_dim
    if model.model.rotary_emb.inv_freq.numel() * 2 != dim or c.num_attention_heads % c.num_key_value_heads:
        return "the kernels turn whole heads, and want as many of them for each key"
    if c.hidden_size % PANEL or dim % LANES or dim > MAX_HEAD_DIM or c.intermediate_size % LANES:
        widths = f"{c.hidden_size}, {dim}, {c.intermediate_size}"
        return f"the kernels want widths in steps of {PANEL} and {LANES}, got {widths}"
    return None


def pack(
    model: PreTrainedModel, max_positions: int, weight: Weight | None = None, *, is_int8: bool = False
) -> PackedModel:
    """Pack a model that `why_not` has nothing against. `weight` gives a layer's matrix if it is not the model's own."""
    weight = weight or _own
    panels = _int8_panels if is_int8 else _panels
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
        layers=tuple(_pack_layer(layer, weight, panels) for layer in inner.layers),
        embedding=inner.embed_tokens.weight.to(torch.bfloat16).contiguous(),
        head=panels(weight(model.lm_head)),
        norm=inner.norm.weight.float().clone(),
        cosine=cosine[0, :, : dim // 2].float().contiguous(),
        sine=sine[0, :, : dim // 2].float().contiguous(),
    )


def _pack_layer(layer: Any, weight: Weight, panels: Callable[[torch.Tensor], PackedMatrix]) -> PackedLayer:
    attention, mlp = layer.self_attn, layer.mlp
    inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
    gate, up = weight(mlp.gate_proj), weight(mlp.up_proj)
    width = gate.shape[1]
    paired = torch.stack([gate.view(-1, LANES, width), up.view(-1, LANES, width)], dim=1)
    return PackedLayer(
        qkv=panels(torch.cat([weight(linear) for linear in inputs])),
        out=panels(weight(attention.o_proj)),
        gate_up=panels(paired.reshape(-1, width)),
        down=panels(weight(mlp.down_proj)),
        norm_in=layer.input_layernorm.weight.float().clone(),
        norm_post=layer.post_attention_layernorm.weight.float().clone(),
        bias=None if inputs[0].bias is None else torch.cat([linear.bias.data for linear in inputs]).float(),
        norm_query=_norm(getattr(attention, "q_norm", None)),
        norm_key=_norm(getattr(attention, "k_norm", None)),
    )


def _norm(module: Any) -> torch.Tensor | None:
    return None if module is None else module.weight.data.float().clone()


def _panels(matrix: torch.Tensor) -> PackedMatrix:
    """(N, K) to panels, zeros where N ends within one."""
    matrix = torch.nn.functional.pad(matrix.to(torch.bfloat16), (0, 0, 0, -len(matrix) % PANEL))
    pairs = matrix.contiguous().view(torch.int32)  # pairs move as one word, five times faster than alone
    return PackedMatrix(_by_panel(pairs))


def _int8_panels(matrix: torch.Tensor) -> PackedMatrix:
    """The same in int8."""
    steps, scales = quantise(matrix)
    missing = -len(matrix) % PANEL
    padded = torch.nn.functional.pad(steps, (0, 0, 0, missing))
    return PackedMatrix(_by_panel(padded.view(torch.int16)), torch.nn.functional.pad(scales, (0, missing)))


def _by_panel(pairs: torch.Tensor) -> torch.Tensor:
    """(N, K / 2) to (N / 32, K / 2, 32)."""
    return pairs.view(-1, PANEL, pairs.shape[1]).transpose(1, 2).contiguous()
