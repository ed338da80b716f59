"""The quick LoRA layer answers and learns as PEFT's does."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.lowrank import LowRankLinear, quick


def config() -> LoraConfig:
    return LoraConfig(r=2, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")


def filled(adapted: Any) -> Any:
    generator = torch.Generator().manual_seed(4)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapted


@pytest.fixture
def theirs(base: PreTrainedModel) -> Any:
    return filled(get_peft_model(copy.deepcopy(base), config()))


@pytest.fixture
def ours(base: PreTrainedModel) -> Any:
    return filled(get_peft_model(copy.deepcopy(base), quick(config())))


IDS = torch.tensor([[5, 9, 40, 3, 77]])


def gradients(adapted: Any) -> dict[str, torch.Tensor]:
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}


def test_it_stands_wherever_pefts_would_and_has_the_same_parameters(theirs: Any, ours: Any) -> None:
    assert sum(isinstance(module, LowRankLinear) for module in ours.modules()) == 14
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}


def test_it_answers_as_pefts_does_also_with_the_adapter_off(theirs: Any, ours: Any) -> None:
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, atol=1e-5)
        with ours.disable_adapter(), theirs.disable_adapter():
            assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)


def test_its_gradients_are_pefts(theirs: Any, ours: Any) -> None:
    wanted, found = gradients(theirs), gradients(ours)
    assert set(found) == set(wanted)
    assert len(found) == 28
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


def test_with_a_fixed_b_alone_gets_a_gradient(ours: Any) -> None:
    for name, parameter in ours.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    assert all("lora_B" in name for name in gradients(ours))


def test_a_bias_of_the_base_stays() -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.part = torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.part(x)
            return out

    plain = Small()
    adapted = get_peft_model(copy.deepcopy(plain), quick(LoraConfig(r=1, target_modules=["part"])))
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(adapted(x), plain(x), atol=1e-6)


def test_in_bfloat16_what_trains_stays_float32(base: PreTrainedModel) -> None:
    adapted = filled(get_peft_model(copy.deepcopy(base).to(torch.bfloat16), quick(config())))
    found = gradients(adapted)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())
