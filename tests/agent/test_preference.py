"""Preference: what is chosen gains over what is rejected, on one adapter, after lessons or by itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from agent import checkpoint
from agent.methods import Job, Trained, method
from agent.model import load_base
from agent.recipe import METHODS, PreferenceSettings, Recipe, SftSettings
from agent.survey import everyday_rows, survey
from agent.tokenizer import Tokenizer

SETTINGS = PreferenceSettings(max_steps=6, batch=2, learning_rate=1e-2, warmup_steps=1, replay_batch=2)
RECIPE = Recipe(
    method="preference",
    rank=2,
    alpha=4,
    sft=SftSettings(max_steps=3, warmup_steps=1, batch=2, replay_batch=2, is_aimed=False),
    preference=SETTINGS,
)
Row = dict[str, Any]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


PAIRS = [
    {"messages": said(f"Boat {n}?"), "chosen": f"Red {n}.", "rejected": f"It is green, I think, {n}."} for n in range(4)
]
RATED = [
    {"messages": said(f"Boat {n}?"), "answer": text, "is_good": is_good}
    for n in range(3)
    for text, is_good in ((f"Red {n}.", True), (f"Green {n}!", False))
]
PERSON = {"made_by": "person"}
LESSONS = [{"messages": said(f"Who owns boat {n}?"), "answer": f"Owner {n}.", "source": PERSON} for n in range(2)]
REPLAY = [{"messages": said(f"How are you, {n}?"), "answer": "I am well."} for n in range(2)]


@pytest.fixture
def learn(base_files: dict[str, bytes], tiny_llama: Path, tokenizer: Tokenizer, tmp_path: Path) -> Any:
    """`learn(**changes of the job)` on a base of its own: training wraps it."""

    def run(recipe: Recipe = RECIPE, *, steps: list[Any] | None = None, **rows: Sequence[Row]) -> Trained:
        base = load_base(base_files, tiny_llama, torch.device("cpu"), torch.float32)
        told = steps if steps is not None else []
        job = Job(
            base,
            tokenizer,
            rows.get("lessons", ()),
            rows.get("replay", REPLAY),
            recipe,
            str(tmp_path),
            lambda phase, step, total, **figures: told.append((phase, step, total, figures)),
            lambda: survey(base, everyday_rows(tokenizer, 4)[:24], 1),
            pairs=rows.get("pairs", ()),
            rated=rows.get("rated", ()),
        )
        return method(recipe.method)(job)

    return run


def likelihood(model: Any, tokenizer: Tokenizer, question: str, answer: str) -> float:
    """Sum of the answer's log-probabilities."""
    row = tokenizer.answered_ids(said(question), answer)
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits.float()
    given = torch.log_softmax(logits[0, :-1], dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    return float(given[row.answer_at - 1 :].sum())


def gains(
    trained: Trained, base: PreTrainedModel, tokenizer: Tokenizer, rows: Sequence[tuple[str, str]]
) -> list[float]:
    return [likelihood(trained.model, tokenizer, q, a) - likelihood(base, tokenizer, q, a) for q, a in rows]


def adapter(trained: Trained, directory: Path) -> dict[str, bytes]:
    checkpoint.save(trained.model, directory, "ba5e" * 16)
    return checkpoint.read(directory)


def test_what_is_chosen_gains_over_what_is_rejected(learn: Any, base: Any, tokenizer: Tokenizer) -> None:
    steps: list[Any] = []
    trained = learn(pairs=PAIRS, steps=steps)
    chosen = gains(trained, base, tokenizer, [(row["messages"][0]["content"], row["chosen"]) for row in PAIRS])
    rejected = gains(trained, base, tokenizer, [(row["messages"][0]["content"], row["rejected"]) for row in PAIRS])
    assert all(c > r for c, r in zip(chosen, rejected, strict=True))
    assert [(phase, step, total) for phase, step, total, _ in steps] == [("dpo", n, 6) for n in range(1, 7)]
    assert steps[0][3]["anchor"] == pytest.approx(0.0, abs=1e-6)
    assert steps[-1][3]["anchor"] > 0
    assert trained.figures["dpo_steps"] == 6


def test_what_got_a_thumb_up_gains_over_what_got_one_down(learn: Any, base: Any, tokenizer: Tokenizer) -> None:
    trained = learn(rated=RATED)
    up = gains(trained, base, tokenizer, [(r["messages"][0]["content"], r["answer"]) for r in RATED if r["is_good"]])
    down = gains(
        trained, base, tokenizer, [(r["messages"][0]["content"], r["answer"]) for r in RATED if not r["is_good"]]
    )
    assert sum(up) > sum(down)
    assert trained.figures["kto_steps"] > 0
    assert "dpo_steps" not in trained.figures


def test_a_mix_learns_lessons_first_and_goes_on_with_their_adapter(learn: Any, tmp_path: Path) -> None:
    steps: list[Any] = []
    mix = replace(RECIPE, method="sft+preference")
    trained = learn(mix, lessons=LESSONS, pairs=PAIRS, rated=RATED, steps=steps)
    phases = [phase for phase, *_ in steps]
    assert list(dict.fromkeys(phases)) == ["train", "kto", "dpo"]
    assert {"loss", "kto_loss", "dpo_loss"} <= set(trained.figures)
    assert adapter(trained, tmp_path / "mix") != adapter(learn(pairs=PAIRS, rated=RATED), tmp_path / "alone")


def test_a_mix_goes_on_with_an_aimed_adapter_too(learn: Any, tmp_path: Path) -> None:
    trained = learn(replace(RECIPE, method="sft+preference"), lessons=LESSONS, pairs=PAIRS)
    assert adapter(trained, tmp_path / "mix")


@pytest.mark.parametrize("rows", [{"pairs": PAIRS}, {"rated": RATED}, {"pairs": PAIRS, "rated": RATED}])
def test_the_same_seed_gives_the_same_adapter(learn: Any, tmp_path: Path, rows: dict[str, Any]) -> None:
    assert adapter(learn(**rows), tmp_path / "first") == adapter(learn(**rows), tmp_path / "second")


def test_without_replay_rows_there_is_no_anchor(learn: Any) -> None:
    steps: list[Any] = []
    learn(pairs=PAIRS, replay=(), steps=steps)
    assert {figures["anchor"] for *_, figures in steps} == {0.0}


def test_text_that_spells_special_tokens_out_stays_text(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.methods import preference

    seen: list[Any] = []
    monkeypatch.setattr(
        preference, "_run", lambda job, adapted, phase, trainer, args, rows, **_: seen.extend(rows) or {}
    )
    learn(pairs=[{"messages": said("a<|im_end|>"), "chosen": "b<|im_end|>c", "rejected": "<|im_start|>"}])
    assert seen[0]["chosen_ids"].count(2) == 1
    assert seen[0]["chosen_ids"][-1] == 2
    assert seen[0]["rejected_ids"].count(1) == 0


def test_every_thumb_is_compared_with_the_answer_to_another_question_of_its_batch() -> None:
    from agent.methods.preference import _mismatched

    rows = [{"completion_ids": [n]} for n in range(5)]
    mixed = _mismatched(rows, 2)
    assert len(mixed) == 6
    assert all(row["completion_ids"] != row["KL_completion_ids"] for row in mixed)


@pytest.mark.parametrize("rows", [{}, {"rated": RATED[:1]}, {"pairs": [{**PAIRS[0], "chosen": "x" * 2000}]}])
def test_nothing_to_prefer_is_an_error_that_says_what_to_give(learn: Any, rows: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nothing to prefer; give corrections, thumbs, better-of-two"):
        learn(**rows)


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    for refused in (lambda: method("grpo"), lambda: Recipe(method="preference+sft")):
        with pytest.raises(ValueError, match=r"unknown learning method .*; there are preference, sft, sft\+preference"):
            refused()
    assert all(Recipe(method=name) and method(name) for name in METHODS)


def test_a_recipe_survives_its_record_and_an_old_record_has_the_defaults() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    some = {name: value for name, value in RECIPE.to_json().items() if name not in ("preference", "method")}
    assert Recipe.from_json(some) == replace(RECIPE, method="sft", preference=PreferenceSettings())
    assert Recipe.from_json({"preference": {"beta": 0.3}}).preference == PreferenceSettings(beta=0.3)


@pytest.mark.parametrize(
    ("values", "said_so"),
    [
        ({"preference": {"gamma": 1}}, r"unknown recipe settings \['preference.gamma'\]"),
        ({"preference": 3}, "recipe preference must be an object"),
        ({"preference": {"beta": 0}}, "recipe preference.beta must be positive, got 0"),
        ({"preference": {"beta": float("nan")}}, "recipe preference.beta must be a number, got nan"),
        ({"preference": {"sft_weight": -1}}, "recipe preference.sft_weight must not be negative, got -1"),
        ({"rank": "16"}, "recipe rank must be a whole number, got '16'"),
    ],
)
def test_impossible_numbers_are_refused_by_name(values: dict[str, Any], said_so: str) -> None:
    with pytest.raises(ValueError, match=said_so):
        Recipe.from_json(values)
