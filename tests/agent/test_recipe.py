"""A recipe is a record: checked, and the same after its way through JSON."""

import json
from typing import Any

import pytest

from agent.recipe import PreferenceSettings, Recipe, SftSettings


def test_a_recipe_comes_back_from_json_as_it_was() -> None:
    recipe = Recipe(rank=4, sft=SftSettings(learning_rate=1e-3, replay_weight=0.0))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_settings_that_are_not_given_take_their_defaults() -> None:
    assert Recipe.from_json({"sft": {"max_steps": 4}}) == Recipe(sft=SftSettings(max_steps=4))


def test_a_change_leaves_everything_else_as_it_was() -> None:
    recipe = Recipe(rank=4, sft=SftSettings(max_steps=4), preference=PreferenceSettings(beta=0.2))
    changed = recipe.changed({"alpha": 2, "sft": {"batch": 3}})
    assert changed == Recipe(
        rank=4, alpha=2, sft=SftSettings(max_steps=4, batch=3), preference=PreferenceSettings(beta=0.2)
    )
    assert recipe.changed({}) == recipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lora_dropout": 0.1}, r"unknown recipe settings \['lora_dropout'\]"),
        ({"sft": {"wibble": 1}}, r"unknown recipe settings \['sft.wibble'\]"),
        ({"max_steps": 4}, r"unknown recipe settings \['max_steps'\]; there are alpha, .*, sft"),
        ({"sft": {"rank": 4}}, r"\['sft.rank'\]; there are .*sft.learning_rate"),
        ({"rank": 1.5}, "recipe rank must be a whole number, got 1.5"),
        ({"rank": True}, "recipe rank must be a whole number, got True"),
        ({"seed": "abc"}, "recipe seed must be a whole number, got 'abc'"),
        ({"sft": {"is_aimed": "false"}}, "recipe sft.is_aimed must be true or false, got 'false'"),
        ({"sft": {"learning_rate": float("inf")}}, "recipe sft.learning_rate must be a number, got inf"),
        ({"sft": 3}, "recipe sft must be an object of its settings, got 3"),
        ({"preference": None}, "recipe preference must be an object of its settings, got None"),
        ({"method": "wishing"}, "unknown learning method 'wishing'; there are"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    for make in (Recipe.from_json, Recipe().changed):
        with pytest.raises(ValueError, match=said):
            make(values)


@pytest.mark.parametrize(
    "name", ["rank", "alpha", "max_length", "replay_tokens", "sft.learning_rate", "sft.batch", "preference.max_steps"]
)
def test_what_must_be_positive_is_refused_by_name_and_value(name: str) -> None:
    with pytest.raises(ValueError, match=f"recipe {name} must be positive, got 0"):
        Recipe.from_json(setting(name, 0))


@pytest.mark.parametrize(
    "name", ["sft.replay_weight", "sft.replay_batch", "sft.drift_weight", "sft.loss_target", "sft.cooldown"]
)
def test_what_holds_back_may_be_nothing_but_not_negative(name: str) -> None:
    Recipe.from_json(setting(name, 0))
    with pytest.raises(ValueError, match=f"recipe {name} must not be negative, got -1"):
        Recipe.from_json(setting(name, -1))


def test_a_whole_number_will_do_for_any_number() -> None:
    assert Recipe.from_json({"sft": {"passes": 3}}).sft.passes == 3


def setting(name: str, value: float) -> dict[str, Any]:
    group, dot, inner = name.partition(".")
    return {group: {inner: value}} if dot else {name: value}


def test_steps_follow_the_lessons_within_the_bounds() -> None:
    settings = SftSettings(passes=4.0, batch=6, min_steps=10, max_steps=100)
    assert [settings.steps(rows) for rows in (1, 60, 61, 10_000)] == [10, 40, 41, 100]
    assert SftSettings(max_steps=3).steps(600) == 3
