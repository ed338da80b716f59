"""A recipe is a record: checked, and the same after its way through JSON."""

import json

import pytest

from agent.recipe import Recipe


def test_a_recipe_comes_back_from_json_as_it_was() -> None:
    recipe = Recipe(rank=4, learning_rate=1e-3, replay_weight=0.0)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_settings_that_are_not_given_take_their_defaults() -> None:
    assert Recipe.from_json({"max_steps": 4}) == Recipe(max_steps=4)


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe settings \['lora_dropout'\]"):
        Recipe.from_json({"lora_dropout": 0.1})


@pytest.mark.parametrize("name", ["rank", "alpha", "learning_rate", "lesson_batch", "max_steps", "max_length"])
def test_what_must_be_positive_is_refused_by_name_and_value(name: str) -> None:
    with pytest.raises(ValueError, match=f"recipe {name} must be positive, got 0"):
        Recipe(**{name: 0})


@pytest.mark.parametrize("name", ["replay_weight", "replay_batch", "drift_weight"])
def test_what_holds_back_may_be_nothing_but_not_negative(name: str) -> None:
    Recipe(**{name: 0})
    with pytest.raises(ValueError, match=f"recipe {name} must not be negative, got -1"):
        Recipe(**{name: -1})


def test_steps_follow_the_lessons_within_the_bounds() -> None:
    recipe = Recipe(passes=4.0, lesson_batch=6, min_steps=10, max_steps=100)
    assert [recipe.steps(rows) for rows in (1, 60, 61, 10_000)] == [10, 40, 41, 100]
    assert Recipe(max_steps=3).steps(600) == 3
