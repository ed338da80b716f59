"""Attention by rows says what the masked attention over the whole layout says, forward and back."""

import copy
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent.layout import lay_out
from agent.row_attention import attend_by_rows, options

LAYOUTS = {
    "a shared beginning and rows of other lengths": ([[1, 2, 3, 9], [1, 2, 3, 8, 7, 6], [1, 2, 3, 5, 5]], 3),
    "nothing shared": ([[4, 2], [1, 2, 3]], 0),
    "one row": ([[1, 2, 3, 4]], 2),
}


@pytest.fixture
def by_rows(base: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(base)
    attend_by_rows(model)
    return model


def states(model: PreTrainedModel, rows: list[list[int]], shared: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states, and the embeddings' gradient of a sum that weighs them unalike."""
    layout = lay_out(rows, shared)
    embedded: Any = model.get_input_embeddings()(layout.ids).detach().requires_grad_()
    found = model.get_decoder()(
        inputs_embeds=embedded,
        attention_mask=layout.sees,
        position_ids=layout.positions,
        use_cache=False,
        **options(model, layout),
    ).last_hidden_state
    (found * torch.linspace(-1, 1, found.shape[-1]) * torch.arange(1, found.shape[1] + 1)[:, None]).sum().backward()
    return found.detach(), embedded.grad


@pytest.mark.parametrize(("rows", "shared"), LAYOUTS.values(), ids=LAYOUTS)
def test_it_is_the_masked_attention_forward_and_back(
    base: PreTrainedModel, by_rows: PreTrainedModel, rows: list[list[int]], shared: int
) -> None:
    wanted, its_gradient = states(base, rows, shared)
    found, gradient = states(by_rows, rows, shared)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert float((gradient - its_gradient).norm() / its_gradient.norm()) < 1e-4


def test_a_call_without_a_plan_attends_as_ever(base: PreTrainedModel, by_rows: PreTrainedModel) -> None:
    ids = torch.tensor([[5, 9, 40, 3, 77]])
    with torch.no_grad():
        assert torch.equal(by_rows(input_ids=ids).logits, base(input_ids=ids).logits)


def test_a_padded_batch_without_a_plan_is_masked_as_ever(base: PreTrainedModel, by_rows: PreTrainedModel) -> None:
    batch = {"input_ids": torch.tensor([[5, 9, 40], [2, 2, 8]]), "attention_mask": torch.tensor([[1, 1, 1], [0, 0, 1]])}
    with torch.no_grad():
        assert torch.equal(by_rows(**batch).logits, base(**batch).logits)


def test_only_a_model_that_was_told_gets_a_plan(base: PreTrainedModel, by_rows: PreTrainedModel) -> None:
    layout = lay_out([[1, 2], [1, 3]], 1)
    assert options(base, layout) == {}
    assert set(options(by_rows, layout)) == {"row_plan"}
