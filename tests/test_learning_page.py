"""What docs/learning.md rests on: its sections, and the benchmarks behind them in small, on the tiny model."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from agent.recipe import Recipe, SftSettings
from service.config import Settings
from tests.benchmarks import arms, nights, own, preference, training
from tests.benchmarks.findings import Finding
from tests.benchmarks.invented import Invented, facts
from tests.benchmarks.learning import PAGE, PARTS, put, section
from tests.benchmarks.lessons import Learnt, bench, measure, train
from tests.benchmarks.machine import Machine

HERE = Machine("a processor", 2, 20.0, "2026-11-25")
TINY = Recipe(rank=2, alpha=2, sft=SftSettings(max_steps=2, batch=2, replay_batch=2, warmup_steps=1))
SOME = Learnt([True, False], [True, True], [False, True], [True, False, False], 0.2, np.array([0.5, 1.0, 0.6]))


def test_a_section_names_its_target_the_machine_and_what_was_missed() -> None:
    found = [Finding("nights", "right as asked", "90 %", "≥ 95 %", is_met=False)]
    text = section(PARTS["nights"], HERE, 61.4, found)
    assert text.startswith("## Twenty nights\n")
    assert "`make bench-nights`, 61 minutes on a processor, 2 cores" in text
    assert "`make bench-nights`, 24 seconds on" in section(PARTS["nights"], HERE, 0.4, found)
    assert "| nights | right as asked | 90 % | ≥ 95 % | MISSED |" in text


def test_a_section_takes_the_place_of_its_older_self_and_others_stay() -> None:
    titles = ["One", "Two", "Three"]
    page = put(put("", titles, "Three", "## Three\n\nthird\n"), titles, "One", "## One\n\nfirst\n")
    page = put(page, titles, "Three", "## Three\n\nthird again\n")
    assert page.index("first") < page.index("third again")
    assert page.count("## ") == 2
    assert put(page, titles, "Three", "## Three\n\nthird again\n") == page


def test_every_part_has_a_make_target_of_its_own() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for name, part in PARTS.items():
        assert f"{part.target}: .venv/tested" in makefile
        assert f"tests.benchmarks.learning {name}\n" in makefile


@pytest.mark.parametrize("name", PARTS)
def test_the_page_says_of_a_part_what_the_benchmark_says(name: str) -> None:
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    told = next(one for one in sections if one.startswith(f"{PARTS[name].title}\n"))
    assert told.splitlines()[2] == PARTS[name].told


def test_only_what_is_wrong_with_a_candidate_is_an_alarm_of_the_preference_benchmark() -> None:
    side = {"num_items": 40, "num_praising": 3, "truth_nll": 2.0, "flattery_nll": 2.2}
    nowhere = {"num_items": 40, "num_right": 0}
    leaning = {"candidate": {"num_items": 40, "num_right": 28}, "champion": nowhere, "base": nowhere}
    assert preference.alarms(side, side, leaning) == []
    assert preference.alarms({**side, "flattery_nll": 1.5}, side, leaning) == ["promote.flattery_risen"]
    leans_nowhere = preference.alarms(side, side, {**leaning, "candidate": nowhere})
    assert sorted(leans_nowhere) == ["promote.nothing_gained", "promote.preferred_low"]


def test_two_nights_teach_measure_and_ask_the_endpoint(
    tiny_llama: Path, tiny_embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HONED_STATE", "HONED_KEYS"):
        monkeypatch.setenv(name, "")  # put back at the end
    models = {"HONED_MODEL": str(tiny_llama), "HONED_EMBEDDER": str(tiny_embedder)}
    with nights.daemon(1, tmp_path / "none", **models) as client:
        passed = nights.nights(client, Console(quiet=True), 2)
    assert [(one.number, one.num_taught) for one in passed] == [(1, 5), (2, 10)]
    assert all(one.asked <= one.num_taught and one.steps > 0 for one in passed)
    told = {finding.name: finding for finding in nights.goals(passed)}
    assert told["after 2 nights of 5 facts: right as asked"].aim == "≥ 95 %"
    assert "night 2, 10 facts" in told


@pytest.mark.parametrize("recipe", [TINY, arms.ARMS["no replay"].changed({"rank": 2, "sft": {"max_steps": 2}})])
def test_one_run_teaches_and_is_measured(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    monkeypatch.setattr(own, "CACHE", tmp_path)
    on, taught = bench(make_settings(tmp_path)), facts(2, 1)
    adapter, figures, seconds = train(on, taught, recipe)
    found = measure(on, taught, adapter)
    assert (len(found.asked), len(found.paraphrased), len(found.kept)) == (2, 2, len(on.kept))
    assert (figures["steps"], seconds > 0) == (2.0, True)


def test_both_trainers_are_timed_and_compared_on_the_same_rows(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "base_directory", lambda: tiny_llama)
    monkeypatch.setattr(training, "SEEDS", (1,))
    found = {finding.name: finding for finding in training.compared(Console(quiet=True))}
    assert found["ours over TRL's"].aim == "≥ 1.5"
    assert "their means apart, of the 0.001 nats that seeds are apart" in found


def test_a_rater_is_learnt_from_and_measured(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "CACHE", tmp_path)
    on = preference.Bench(make_settings(tmp_path))
    answers = {f"What is {name}?": [f"The {name}.", f"It is a {name}."] for name in "abcdef"}
    base, known = on.flattery(None), [True, *on.right(None)[1:]]
    for arm in preference.ARMS:
        told = {
            one.name.split(",")[0]: one
            for one in preference.honest(Console(quiet=True), on, answers, base, known, arm, 1)
        }
        assert told["held-out pairs told right"].aim == "≥ 75 %"
        assert told["of what it was taught"].aim == "≥ 70 %"


def test_a_scope_leaves_to_the_base_what_is_not_near_a_taught_question(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = {"taught?": [1.0, 0.0], "near": [0.8, 0.6], "far": [0.0, 1.0]}
    monkeypatch.setattr(arms, "vectors", lambda of, texts: np.array([near[text] for text in texts]))
    taught = [Invented("taught?", "x is y", near, near, "y") for near in ("near", "far")]
    kept = [({"question": question}, "an answer") for question in ("near", "near", "far")]
    on = arms.Bench({}, None, None, kept, 0.0)  # type: ignore[arg-type]  # only what was kept is looked at
    found = arms.scoped(make_settings(tmp_path), on, taught, SOME)
    assert found.paraphrased == [True, False]
    assert found.otherwise == [False, False]
    assert found.kept == [True, False, True]
    assert math.isclose(found.nll_rise, 0.2 * 2 / 3)
    assert found.lengths.tolist() == [0.5, 1.0, 1.0]
