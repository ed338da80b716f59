"""Which directions an adapter reads: those where lessons stand out, and nothing that everyday rows use."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.hooks import fed_by
from agent.moments import Moment
from agent.replay import collate, hidden_states
from agent.subspace import aim, directions, standing_out
from agent.survey import survey
from agent.tokenizer import AnsweredIds, Tokenizer


def rows(tokenizer: Tokenizer, questions: list[str]) -> list[AnsweredIds]:
    return [tokenizer.answered_ids([{"role": "user", "content": q}], f"It is {q[::-1]}") for q in questions]


@pytest.fixture(scope="module")
def lessons(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return rows(tokenizer, ["Who owns QUILLON?", "Where is ZYX?"])


@pytest.fixture(scope="module")
def everyday(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return rows(tokenizer, [f"{n} apples and {n} pears" for n in range(20)])


@pytest.fixture(scope="module")
def kept(base: PreTrainedModel, everyday: list[AnsweredIds]) -> dict[str, Moment]:
    return dict(survey(base, everyday, 1).inputs)


def diagonal(*values: float) -> Moment:
    """The moment of a diagonal matrix, largest first."""
    order = sorted(range(len(values)), key=lambda place: -values[place])
    return Moment(torch.eye(len(values))[:, order], torch.tensor([values[place] for place in order]), 0.0)


def found(lessons: list[float], kept: list[float], num: int, floor: float) -> torch.Tensor:
    """The directions for diagonal moments: the whitened lessons are diagonal too."""
    whitener = diagonal(*kept).power(-0.5, floor)
    gains = whitener(torch.eye(len(kept))).diagonal().square()
    whitened = diagonal(*(float(gain) * lesson for gain, lesson in zip(gains, lessons, strict=True)))
    return directions(whitened, whitener, sum(lessons) / len(lessons), num)


def test_the_direction_that_only_lessons_use_comes_first() -> None:
    first = found(lessons=[1, 1, 1, 1], kept=[9, 9, 0.01, 9], num=1, floor=0.01)
    assert int(first.abs().argmax()) == 2
    assert float(first.abs()[0, [0, 1, 3]].max()) < 1e-3


def test_the_floor_keeps_a_direction_that_nothing_uses_from_standing_out() -> None:
    lessons, kept = [1, 1e-6, 0], [1, 1e-12, 1]
    assert int(found(lessons, kept, num=1, floor=1e-12).abs().argmax()) == 1
    assert int(found(lessons, kept, num=1, floor=0.01).abs().argmax()) == 0


def test_the_lessons_response_has_the_size_of_a_fresh_lora_layers() -> None:
    lessons = [4.0, 2.0, 1.0, 0.5]
    aimed = found(lessons, [1.0, 1.0, 1.0, 1.0], num=3, floor=0.01)
    response = aimed.square() @ torch.tensor(lessons)
    assert torch.allclose(response, torch.full((3,), sum(lessons) / 4 / 3), rtol=1e-4)


def test_directions_that_the_lessons_do_not_use_stay_silent() -> None:
    aimed = found([0, 2.0, 0, 0], [1.0] * 4, num=3, floor=0.01)
    assert torch.isfinite(aimed).all()
    assert (aimed.abs().sum(dim=1) > 0).sum() == 1
    assert int(aimed.abs().sum(dim=0).argmax()) == 1
    assert not found([0.0] * 4, [1.0] * 4, num=3, floor=0.01).any()


def test_more_directions_than_inputs_are_refused_with_the_next_step(
    base: PreTrainedModel, lessons: list[AnsweredIds], kept: dict[str, Moment]
) -> None:
    with pytest.raises(ValueError, match=r"rank 65 is more than the 64 inputs of layers.* at most 64"):
        standing_out(base, lessons, kept, 65, 0.05, seed=1)


def test_layers_fed_the_same_input_get_the_same_and_layers_without_a_kept_moment_get_none(
    base: PreTrainedModel, lessons: list[AnsweredIds], kept: dict[str, Moment]
) -> None:
    some = {name: moment for name, moment in kept.items() if not name.startswith("layers.1.mlp.down")}
    aimed = standing_out(base, lessons, some, 2, 0.05, seed=1)
    assert set(aimed) == set(some)
    assert torch.equal(aimed["layers.0.mlp.up_proj"], aimed["layers.0.mlp.gate_proj"])
    assert not torch.equal(aimed["layers.0.mlp.up_proj"], aimed["layers.1.mlp.up_proj"])


def test_no_hook_stays_on_the_model(base: PreTrainedModel, lessons: list[AnsweredIds], kept: dict[str, Moment]) -> None:
    standing_out(base, lessons, kept, 2, 0.05, seed=1)
    assert not any(module._forward_pre_hooks for module in base.modules())


def energies(model: PreTrainedModel, some: list[AnsweredIds], of: dict[str, torch.Tensor]) -> dict[str, float]:
    """By layer, the summed energy that directions find in rows."""
    sums: dict[str, float] = {}

    def add(name: str, given: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float((given.flatten(0, -2) @ of[name].T).square().sum())

    with torch.no_grad(), fed_by(model, add):
        hidden_states(model, collate(some))
    return sums


def test_an_aimed_adapter_hears_lessons_louder_than_everyday_text(
    base: PreTrainedModel, lessons: list[AnsweredIds], everyday: list[AnsweredIds], kept: dict[str, Moment]
) -> None:
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    loudness = []
    for is_aimed in (False, True):
        if is_aimed:
            aim(adapted, standing_out(base, lessons, kept, 2, 0.01, seed=1))
        reads = {name: layer.lora_A["default"].weight.detach() for name, layer in _lora_layers(adapted)}
        heard, kept_heard = (energies(base, some, reads) for some in (lessons, everyday))
        loudness.append({name: heard[name] / kept_heard[name] for name in heard})
    assert all(loudness[1][name] > 2 * loudness[0][name] for name in loudness[0])


def test_only_b_is_left_to_train(base: PreTrainedModel, lessons: list[AnsweredIds], kept: dict[str, Moment]) -> None:
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    aim(adapted, standing_out(base, lessons, kept, 2, 0.01, seed=1))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 7
    assert all("lora_B" in name for name in trained)


def _lora_layers(adapted: Any) -> list[tuple[str, Any]]:
    decoder = adapted.get_base_model().get_decoder()
    return [(name, layer) for name, layer in decoder.named_modules() if hasattr(layer, "lora_A")]
