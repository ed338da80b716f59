"""Which outputs decide what the base says, and an adapter that treads softly there."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.influence import influence, settle, soften, softening
from agent.replay import collate, hidden_states
from agent.subspace import second_moments
from agent.tokenizer import AnsweredIds, Tokenizer


@pytest.fixture
def rows(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return [tokenizer.answered_ids([{"role": "user", "content": f"Why {n}?"}], f"For {n}.") for n in range(15)]


def test_the_information_predicts_what_a_small_move_costs(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    """½ dᵀ·G·d, summed over the tokens whose outputs move, is the KL that the move makes, as far as tokens are many."""
    name, row = "layers.1.mlp.down_proj", rows[0]
    draws = [influence(base, [row], seed)[name] for seed in range(60)]
    information = torch.stack(draws).mean(dim=0)
    layer: Any = base.get_decoder().get_submodule(name)
    direction = torch.randn(layer.out_features, generator=torch.Generator().manual_seed(3))
    move = 0.02 * direction / direction.norm()
    predicted = 0.5 * float(move @ information @ move)
    with torch.no_grad():
        before = base.get_output_embeddings()(hidden_states(base, collate([row]))).log_softmax(-1)
        hook = layer.register_forward_hook(lambda _, arguments, output: output + move)
        after = base.get_output_embeddings()(hidden_states(base, collate([row]))).log_softmax(-1)
        hook.remove()
    cost = float(torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True))
    assert predicted == pytest.approx(cost, rel=0.5)


def test_every_layer_is_seen_and_the_model_stays_as_it_was(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    told: list[tuple[int, int]] = []
    found = influence(base, rows, 1, lambda done, of: told.append((done, of)))
    linear = {n for n, m in base.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(found) == linear
    assert told == [(12, 15), (15, 15)]
    assert all(torch.allclose(moment, moment.T) and float(moment.diagonal().sum()) > 0 for moment in found.values())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.parameters())
    assert not hidden_states(base, collate(rows[:1])).requires_grad


def test_the_same_seed_draws_the_same(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    first, again, other = (influence(base, rows[:2], seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_softening_moves_less_where_it_matters_more() -> None:
    found = softening(torch.diag(torch.tensor([7.9, 0.1, 0.0, 0.0])), floor=0.1)
    gains = found.diagonal()
    assert float(gains[0]) < float(gains[1]) < float(gains[2])
    assert float(gains[2]) == pytest.approx(0.1**-0.5, rel=1e-4)
    assert torch.allclose(found, found.T)


def test_where_no_output_mattered_nothing_is_softened() -> None:
    assert torch.equal(softening(torch.zeros(3, 3), floor=0.1), torch.eye(3))


@pytest.fixture
def adapted(base: PreTrainedModel) -> Any:
    torch.manual_seed(0)
    return get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


def test_a_softly_learnt_adapter_settles_as_plain_lora_with_the_same_answers(
    base: PreTrainedModel, adapted: Any, rows: list[AnsweredIds]
) -> None:
    drift = soften(adapted, second_moments(base, rows), influence(base, rows, 1), floor=0.1)
    assert float(drift.loss().detach()) == 0.0
    trained = [p for p in adapted.parameters() if p.requires_grad and "original" in _name(adapted, p)]
    assert len(trained) == 14
    for number, matrix in enumerate(trained):
        matrix.data = 0.1 * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(number))
    assert float(drift.loss().detach()) > 0
    ids = torch.tensor([rows[0].ids])
    with torch.no_grad():
        before = adapted(input_ids=ids).logits
        settle(adapted)
        assert torch.allclose(adapted(input_ids=ids).logits, before, atol=1e-4)
    assert not any("parametrizations" in name for name, _ in adapted.named_parameters())


def test_the_drift_foretells_the_kl_of_a_small_adapter(
    base: PreTrainedModel, adapted: Any, rows: list[AnsweredIds]
) -> None:
    """In size: layers are taken one by one, and tokens move together."""
    drift = soften(adapted, second_moments(base, rows), influence(base, rows, 1), floor=0.1)
    for name, parameter in adapted.named_parameters():
        if "layers.1.mlp.down_proj.lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        states = hidden_states(adapted.get_base_model(), collate(rows))
        after = base.get_output_embeddings()(states).log_softmax(-1)
        before = base.get_output_embeddings()(hidden_states(base, collate(rows))).log_softmax(-1)
    kl = float(torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True))
    assert kl / 10 < float(drift.loss().detach()) < 10 * kl


def _name(adapted: Any, wanted: torch.nn.Parameter) -> str:
    return next(name for name, parameter in adapted.named_parameters() if parameter is wanted)
