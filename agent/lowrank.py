"""A linear layer with a LoRA on it, as one step: PEFT's layer with a forward and a backward of its own.

PEFT's keeps the layer's whole output and input for the backward pass, and works in float32 beside a bfloat16 model.
Here the two products are added in place, in the model's precision, and with A fixed only A·x is kept: about twice as
fast on a processor. The weights that train stay float32.
"""

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch.autograd.function import once_differentiable


class LowRank(torch.autograd.Function):  # type: ignore[misc]
    """y = x·Wᵀ + bias + scale·(x·Aᵀ)·Bᵀ for x (n, in), W (out, in), A (rank, in), B (out, rank); W, bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        near, far = a.to(x.dtype), b.to(x.dtype)
        inner = x @ near.T
        ctx.save_for_backward(weight, near, far, inner, x if ctx.needs_input_grad[3] else None)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight, bias).addmm_(inner, far.T, alpha=scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, near, far, inner, x = ctx.saved_tensors
        to_x = to_a = to_b = None
        back = gradient @ far
        if ctx.needs_input_grad[0]:
            to_x = (gradient @ weight).addmm_(back, near, alpha=ctx.scale)
        if ctx.needs_input_grad[3]:
            to_a = ctx.scale * (back.T @ x).float()
        if ctx.needs_input_grad[4]:
            to_b = ctx.scale * (gradient.T @ inner).float()
        return to_x, None, None, to_a, to_b, None


class LowRankLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer, quicker in training; the same parameters under the same names."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base, adapter = self.get_base_layer(), self.active_adapters[0]
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        y = LowRank.apply(
            x.flatten(0, -2),
            base.weight,
            base.bias,
            self.lora_A[adapter].weight,
            self.lora_B[adapter].weight,
            self.scaling[adapter],
        )
        return y.unflatten(0, x.shape[:-1])


def quick(config: LoraConfig) -> LoraConfig:
    """The same adapter, with the quick layers."""
    config._register_custom_module({torch.nn.Linear: LowRankLinear})
    return config
