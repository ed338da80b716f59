"""Leaning the way people judged: by what a model finds likelier or less likely than the base does."""

from collections.abc import Callable
from typing import Any

import pytest

from agent.answers import answer_logprobs
from agent.curation.lesson import Judgement
from agent.engines.embedded import EmbeddedEngine
from agent.taste import MAX_ITEMS, figures, judged_items, leans, likelihoods
from agent.tokenizer import Tokenizer

ASKED = [{"role": "user", "content": "What is a boat?"}]
PAIR = {"kind": "preference", "messages": ASKED, "chosen": "A ship.", "rejected": "Wood, mostly."}
UP = {"kind": "rated", "messages": ASKED, "answer": "A ship.", "is_good": True}
DOWN = UP | {"is_good": False}

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("item", "found", "base", "is_so"),
    [
        (PAIR, (-3.0, -9.0), (-5.0, -9.0), True),
        (PAIR, (-5.0, -9.5), (-5.0, -9.0), True),
        (PAIR, (-3.0, -6.0), (-5.0, -9.0), False),  # both are likelier, the other one more so
        (PAIR, (-5.0, -9.0), (-5.0, -9.0), False),  # the base leans nowhere
        (UP, (-4.0,), (-5.0,), True),
        (UP, (-6.0,), (-5.0,), False),
        (UP, (-5.0,), (-5.0,), False),
        (DOWN, (-6.0,), (-5.0,), True),
        (DOWN, (-4.0,), (-5.0,), False),
        (DOWN, (-5.0,), (-5.0,), False),
    ],
)
def test_a_model_leans_by_what_it_finds_likelier_than_the_base(
    item: dict[str, Any], found: tuple[float, ...], base: tuple[float, ...], is_so: bool
) -> None:
    assert leans(item, found, base) is is_so


def test_likelihoods_are_those_of_the_whole_answers(engine: EmbeddedEngine, tokenizer: Tokenizer) -> None:
    (pair, up) = likelihoods(engine, tokenizer, [PAIR, UP])
    ship, wood = (
        sum(one) for one in answer_logprobs(engine, tokenizer, [(ASKED, "A ship."), (ASKED, "Wood, mostly.")])
    )
    assert pair == pytest.approx((ship, wood), abs=1e-4)
    assert up == pytest.approx((ship,), abs=1e-4)


def test_of_each_model_it_is_counted_how_often_it_leans_so() -> None:
    base = [(-5.0, -9.0), (-5.0,), (-5.0,)]
    found = {"base": base, "champion": [(-5.0, -9.0), (-4.0,), (-4.0,)], "candidate": [(-4.0, -9.0), (-4.0,), (-6.0,)]}
    assert {name: one["num_right"] for name, one in figures([PAIR, UP, DOWN], found).items()} == {
        "candidate": 3,
        "champion": 1,
        "base": 0,
    }
    assert figures([], {name: [] for name in found})["candidate"] == {"num_items": 0, "num_right": 0}


def test_corrections_are_asked_and_not_leant_to(make: Make) -> None:
    interaction, feedback = make.taught("a", "Who owns the red boat?", "Marta owns it.")
    edit = Judgement(interaction, feedback, text="Marta owns it.", rival=interaction.reply)
    word = make.feedback("f-b", interaction.id, None)
    assert judged_items([edit, Judgement(interaction, word, text=interaction.reply)]) == [
        {
            "kind": "rated",
            "messages": [{"role": "user", "content": "Who owns the red boat?"}],
            "answer": interaction.reply,
            "is_good": True,
            "source": {
                "made_by": "model",
                "checked_by": word.principal,
                "feedback_id": "f-b",
                "interaction_id": interaction.id,
                "checkpoint_id": interaction.checkpoint_id,
            },
        }
    ]


def test_of_many_judgements_the_newest_are_measured(make: Make) -> None:
    interaction = make.interaction("i", "What is a boat?")
    words = [make.feedback(f"f-{number}", interaction.id, None) for number in range(MAX_ITEMS + 5)]
    items = judged_items([Judgement(interaction, word, text=interaction.reply) for word in words])
    assert [item["source"]["feedback_id"] for item in items] == [word.id for word in words[5:]]
