"""Which directions an adapter reads: those where lessons stand out, and nothing that replay rows use."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.subspace import aim, second_moments, standing_out
from agent.tokenizer import AnsweredIds, Tokenizer


def rows(tokenizer: Tokenizer, questions: list[str]) -> list[AnsweredIds]:
    return [tokenizer.answered_ids([{"role": "user", "content": q}], f"It is {q[::-1]}") for q in questions]


@pytest.fixture
def lessons(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return rows(tokenizer, ["Who owns QUILLON?", "Where is ZYX?"])


@pytest.fixture
def kept(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return rows(tokenizer, [f"{n} apples and {n} pears" for n in range(20)])


def energy(directions: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nw,wv,nv->n", directions, moments, directions)


def diagonal(*values: float) -> torch.Tensor:
    return torch.diag(torch.tensor(values))


def test_the_direction_that_only_lessons_use_comes_first() -> None:
    found = standing_out(lessons=diagonal(1, 1, 1, 1), kept=diagonal(9, 9, 0.01, 9), num=1, floor=0.01)
    assert int(found.abs().argmax()) == 2
    assert float(found.abs()[0, [0, 1, 3]].max()) < 1e-3


def test_the_floor_keeps_a_direction_that_nothing_uses_from_standing_out() -> None:
    lessons, kept = diagonal(1, 1e-6, 0), diagonal(1, 1e-12, 1)
    assert int(standing_out(lessons, kept, num=1, floor=1e-12).abs().argmax()) == 1
    assert int(standing_out(lessons, kept, num=1, floor=0.01).abs().argmax()) == 0


def test_the_lessons_response_has_the_size_of_a_fresh_lora_layers() -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(400, 12, generator=generator)
    lessons, kept = inputs.T @ inputs / 400, torch.eye(12)
    response = energy(standing_out(lessons, kept, num=4, floor=0.01), lessons)
    assert torch.allclose(response, torch.full((4,), float(lessons.diagonal().mean()) / 3), rtol=1e-4)


def test_directions_that_the_lessons_do_not_use_stay_silent() -> None:
    lessons = torch.zeros(6, 6)
    lessons[1, 1] = 2.0
    found = standing_out(lessons, torch.eye(6), num=3, floor=0.01)
    assert torch.isfinite(found).all()
    assert (found.abs().sum(dim=1) > 0).sum() == 1
    assert int(found.abs().sum(dim=0).argmax()) == 1
    assert not standing_out(torch.zeros(6, 6), torch.eye(6), num=3, floor=0.01).any()


def test_more_directions_than_inputs_are_refused_with_the_next_step() -> None:
    with pytest.raises(ValueError, match="rank 5 is more than the 4 inputs of a layer; choose a rank of at most 4"):
        standing_out(torch.eye(4), torch.eye(4), num=5, floor=0.01)


def test_moments_are_those_of_the_inputs_themselves(base: PreTrainedModel, lessons: list[AnsweredIds]) -> None:
    one = lessons[:1]
    seen: list[torch.Tensor] = []
    layer: Any = base.get_decoder().layers[1].mlp.up_proj
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0]))
    moments = second_moments(base, one)
    hook.remove()
    assert torch.allclose(moments["layers.1.mlp.up_proj"], seen[0].T @ seen[0] / len(one[0].ids), atol=1e-5)


def test_layers_fed_the_same_input_share_their_moments(base: PreTrainedModel, lessons: list[AnsweredIds]) -> None:
    moments = second_moments(base, lessons)
    assert len(moments) == 2 * 7
    assert moments["layers.0.mlp.up_proj"] is moments["layers.0.mlp.gate_proj"]
    assert moments["layers.0.self_attn.q_proj"] is moments["layers.0.self_attn.v_proj"]
    assert moments["layers.0.mlp.up_proj"] is not moments["layers.1.mlp.up_proj"]


def test_no_hook_stays_on_the_model(base: PreTrainedModel, lessons: list[AnsweredIds]) -> None:
    second_moments(base, lessons)
    assert not any(module._forward_pre_hooks for module in base.modules())


def test_an_aimed_adapter_hears_lessons_louder_than_what_must_stay(
    base: PreTrainedModel, lessons: list[AnsweredIds], kept: list[AnsweredIds]
) -> None:
    of_lessons, of_kept = second_moments(base, lessons), second_moments(base, kept)
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    fresh = {name: layer.lora_A["default"].weight.detach().clone() for name, layer in _lora_layers(adapted)}
    aim(adapted, of_lessons, of_kept, floor=0.01)
    for name, layer in _lora_layers(adapted):
        weight = layer.lora_A["default"].weight.detach()
        assert _loudness(weight, of_lessons[name], of_kept[name]) > 2 * _loudness(
            fresh[name], of_lessons[name], of_kept[name]
        )


def test_only_b_is_left_to_train(base: PreTrainedModel, lessons: list[AnsweredIds], kept: list[AnsweredIds]) -> None:
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    aim(adapted, second_moments(base, lessons), second_moments(base, kept), floor=0.01)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 7
    assert all("lora_B" in name for name in trained)


def _lora_layers(adapted: Any) -> list[tuple[str, Any]]:
    decoder = adapted.get_base_model().get_decoder()
    return [(name, layer) for name, layer in decoder.named_modules() if hasattr(layer, "lora_A")]


def _loudness(directions: torch.Tensor, lessons: torch.Tensor, kept: torch.Tensor) -> float:
    return float(energy(directions, lessons).sum() / energy(directions, kept).sum())
