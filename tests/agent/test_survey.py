"""What the base does on everyday prompts: measured, kept, and found again only for the same base and rows."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from agent.replay import collate, hidden_states, row_key
from agent.survey import Survey, everyday_rows, load_survey, save_survey, survey, survey_key, survey_of
from agent.tokenizer import AnsweredIds, Tokenizer


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[AnsweredIds]:
    return [tokenizer.answered_ids([{"role": "user", "content": f"Why {n}?"}], f"For {n}.") for n in range(15)]


@pytest.fixture(scope="module")
def found(base: PreTrainedModel, rows: list[AnsweredIds]) -> Survey:
    return survey(base, rows, 1)


def same(one: Survey, other: Survey) -> bool:
    pairs = [(one.inputs, other.inputs), (one.outputs, other.outputs)]
    return all(
        set(a) == set(b)
        and all(torch.allclose(a[n].values, b[n].values) and abs(a[n].rest - b[n].rest) < 1e-6 for n in a)
        and all(torch.allclose(a[n].vectors, b[n].vectors, atol=4e-3) for n in a)
        for a, b in pairs
    ) and all(torch.equal(one.states[key], other.states[key]) for key in one.states)


def test_every_layer_is_seen_and_the_model_stays_as_it_was(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    told: list[tuple[int, int]] = []
    found = survey(base, rows, 1, lambda done, of: told.append((done, of)))
    linear = {n for n, m in base.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(found.inputs) == set(found.outputs) == linear
    assert told == [(12, 15), (15, 15)]
    assert all(moment.mean > 0 for moment in [*found.inputs.values(), *found.outputs.values()])
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.modules())
    assert not hidden_states(base, collate(rows[:1])).requires_grad


def test_input_moments_are_those_of_the_inputs_themselves(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    seen: list[torch.Tensor] = []
    layer: Any = base.get_decoder().layers[1].mlp.up_proj
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0].detach()))
    moment = survey(base, rows[:1], 1).inputs["layers.1.mlp.up_proj"]
    hook.remove()
    wanted = seen[0].T @ seen[0] / len(rows[0].ids)
    assert torch.allclose(moment.mean * moment.power(1.0, 0.0)(torch.eye(64)), wanted, atol=1e-3)


def test_layers_fed_the_same_input_share_their_moment(found: Survey) -> None:
    assert found.inputs["layers.0.mlp.up_proj"] is found.inputs["layers.0.mlp.gate_proj"]
    assert found.inputs["layers.0.self_attn.q_proj"] is found.inputs["layers.0.self_attn.v_proj"]
    assert found.inputs["layers.0.mlp.up_proj"] is not found.inputs["layers.1.mlp.up_proj"]


def test_the_information_predicts_what_a_small_move_costs(base: PreTrainedModel, rows: list[AnsweredIds]) -> None:
    """½ dᵀ·G·d, summed over the tokens whose outputs move, is the KL that the move makes, as far as tokens are many."""
    name, row = "layers.1.mlp.down_proj", rows[0]
    layer: Any = base.get_decoder().get_submodule(name)
    direction = torch.randn(layer.out_features, generator=torch.Generator().manual_seed(3))
    move = 0.02 * direction / direction.norm()
    costs = []
    for seed in range(60):
        moment = survey(base, [row], seed).outputs[name]
        costs.append(0.5 * moment.mean * float(move @ moment.power(1.0, 0.0).columns(move[:, None])[:, 0]))
    with torch.no_grad():
        before = base.get_output_embeddings()(hidden_states(base, collate([row]))).log_softmax(-1)
        hook = layer.register_forward_hook(lambda _, arguments, output: output + move)
        after = base.get_output_embeddings()(hidden_states(base, collate([row]))).log_softmax(-1)
        hook.remove()
    cost = float(torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True))
    assert sum(costs) / len(costs) == pytest.approx(cost, rel=0.5)


def test_states_are_the_bases_own_where_answers_are_decided(
    base: PreTrainedModel, rows: list[AnsweredIds], found: Survey
) -> None:
    assert len(found.states) == len(rows)
    with torch.no_grad():
        alone = hidden_states(base, collate([rows[4]]))
    assert torch.allclose(found.states[row_key(rows[4])], alone, atol=1e-4)


def test_the_same_seed_gives_the_same_survey(base: PreTrainedModel, rows: list[AnsweredIds], found: Survey) -> None:
    assert same(survey(base, rows, 1), found)
    assert not same(survey(base, rows, 2), found)


def test_what_is_saved_comes_back_under_its_key_only(found: Survey, tmp_path: Path) -> None:
    path = tmp_path / "survey.safetensors"
    save_survey(found, path, "k" * 64)
    again = load_survey(path, "k" * 64)
    assert again is not None
    assert same(again, found)
    assert again.inputs["layers.0.mlp.up_proj"] is again.inputs["layers.0.mlp.gate_proj"]
    assert load_survey(path, "l" * 64) is None


@pytest.mark.parametrize("spoil", ["nothing like it", "cut short", "parts missing"])
def test_a_spoilt_file_is_none_and_can_be_made_again(found: Survey, tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "survey.safetensors"
    save_survey(found, path, "k")
    if spoil == "parts missing":
        save_file({"outputs/layer/vectors": torch.zeros(1)}, path, {"key": "k", "fed": "{}"})
    else:
        path.write_bytes(b"hello" if spoil == "nothing like it" else path.read_bytes()[:-100])
    assert load_survey(path, "k") is None
    path.unlink()
    assert load_survey(path, "k") is None


def test_the_key_depends_on_the_base_its_precision_and_every_row(rows: list[AnsweredIds]) -> None:
    keys = {
        survey_key("a", "torch.float32", rows),
        survey_key("b", "torch.float32", rows),
        survey_key("a", "torch.bfloat16", rows),
        survey_key("a", "torch.float32", rows[:-1]),
        survey_key("a", "torch.float32", [*rows[:-1], AnsweredIds(rows[-1].ids, rows[-1].answer_at - 1)]),
    }
    assert len(keys) == 5


def test_a_kept_survey_is_used_and_one_of_other_rows_is_made_anew(
    base: PreTrainedModel, rows: list[AnsweredIds], tmp_path: Path
) -> None:
    kept, made = tmp_path / "kept", tmp_path / "made"
    survey_of(base, rows, "a", None, kept)
    before = hashlib.sha256(kept.read_bytes()).hexdigest()
    told: list[int] = []
    survey_of(base, rows, "a", kept, made, lambda done, of: told.append(done))
    assert (told, made.exists()) == ([], False)
    survey_of(base, rows[:3], "a", kept, made, lambda done, of: told.append(done))
    assert (told, made.exists()) == ([3], True)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == before


def test_the_everyday_rows_are_shipped_and_begin_answers(tokenizer: Tokenizer) -> None:
    rows = everyday_rows(tokenizer, 4)
    assert len(rows) > 100
    assert all(1 <= len(row.ids) - row.answer_at <= 4 for row in rows)
