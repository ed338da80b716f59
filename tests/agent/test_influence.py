"""An adapter that treads softly where the base's answers depend on it."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from agent.influence import settle, soften
from agent.moments import Moment
from agent.replay import collate, hidden_states
from agent.survey import Survey, survey
from agent.tokenizer import AnsweredIds, Tokenizer


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return [tokenizer.answered_ids([{"role": "user", "content": f"Why {n}?"}], f"For {n}.") for n in range(15)]


@pytest.fixture(scope="module")
def found(base: PreTrainedModel, rows: list[AnsweredIds]) -> Survey:
    return survey(base, rows, 1)


def test_softening_moves_less_where_it_matters_more() -> None:
    moment = Moment(torch.eye(4)[:, :2], torch.tensor([7.9, 0.1]), 0.0)
    gains = moment.power(-0.5, 0.1)(torch.eye(4)).diagonal()
    assert float(gains[0]) < float(gains[1]) < float(gains[2])
    assert float(gains[2]) == pytest.approx(0.1**-0.5, rel=1e-4)


@pytest.fixture
def adapted(base: PreTrainedModel) -> Any:
    torch.manual_seed(0)
    return get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


def test_a_softly_learnt_adapter_settles_as_plain_lora_with_the_same_answers(
    adapted: Any, rows: list[AnsweredIds], found: Survey
) -> None:
    drift = soften(adapted, found, floor=0.1)
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
    base: PreTrainedModel, adapted: Any, rows: list[AnsweredIds], found: Survey
) -> None:
    """In size: layers are taken one by one, and tokens move together."""
    drift = soften(adapted, found, floor=0.1)
    for name, parameter in adapted.named_parameters():
        if "layers.1.mlp.down_proj.lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        states = hidden_states(adapted.get_base_model(), collate(rows))
        after = base.get_output_embeddings()(states).log_softmax(-1)
        before = base.get_output_embeddings()(hidden_states(base, collate(rows))).log_softmax(-1)
    kl = float(torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True))
    assert kl / 10 < float(drift.loss().detach()) < 10 * kl


def test_a_layer_that_the_survey_lacks_stays_plain(adapted: Any, found: Survey) -> None:
    some = {name: moment for name, moment in found.outputs.items() if name != "layers.0.mlp.up_proj"}
    soften(adapted, Survey(found.inputs, some, found.states), floor=0.1)
    plain = [name for name, _ in adapted.named_parameters() if name.endswith("lora_B.default.weight")]
    assert [name.split("layers.")[1] for name in plain] == ["0.mlp.up_proj.lora_B.default.weight"]


def _name(adapted: Any, wanted: torch.nn.Parameter) -> str:
    return next(name for name, parameter in adapted.named_parameters() if parameter is wanted)
