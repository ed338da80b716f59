"""The learning benchmarks' domains, arms and judgement, and the label harness end to end on the tiny model."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from agent.detection import Example
from agent.recipe import Recipe, SftSettings
from service.config import Settings
from store.records import TokenTrace
from tests.benchmarks import curation, detection, labels, own, replicate
from tests.benchmarks.choosing import ARMS, PoolState, at_random, dense_uncertain
from tests.benchmarks.curves import interval, labels_needed, ratio
from tests.benchmarks.detection import auroc, scored, unavoidable_ece
from tests.benchmarks.domains import Item, capitals, domain, mixed
from tests.benchmarks.labels import by_sft
from tests.benchmarks.replicate import Notebook, Plan
from tests.fakes import adapter_files

# ── domains ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "least"), [("capitals", 200), ("larger capitals", 180), ("mixed", 200)])
def test_an_expected_answer_is_right_and_exact_and_an_echo_is_not_right(name: str, least: int) -> None:
    if name != "mixed":
        pytest.importorskip("countryinfo")
    items = domain(name)
    assert len(items) >= least
    assert len({item.question for item in items}) == len({item.group for item in items}) == len(items)
    for item in items:
        assert item.is_right(f"It is {item.answer}, I think."), item
        assert item.is_exact(f"{item.answer}."), item
        assert not item.is_right(item.question), item


def test_a_domain_is_always_the_same_and_an_unknown_one_is_refused() -> None:
    assert mixed() == mixed()
    with pytest.raises(ValueError, match="no domain 'rivers'; there are capitals, larger capitals, mixed"):
        domain("rivers")


def test_capitals_are_right_as_they_are_often_written() -> None:
    pytest.importorskip("countryinfo")
    items = {item.group: item for item in capitals(1)}
    assert items["capital: Brazil"].is_right("It's Brasilia!")
    assert items["capital: Ukraine"].is_right("Kiev is.")
    assert items["capital: United States"].is_right("Washington, DC")
    assert not items["capital: Niger"].is_right("The capital is Abuja.")
    assert "capital: Mexico" not in items


# ── detection ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_area_is_the_usual_one_ties_included() -> None:
    draw = np.random.default_rng(0)
    scores, wrong = draw.integers(0, 9, 200).astype(float), draw.integers(0, 2, 200).astype(float)
    assert auroc(scores, wrong) == pytest.approx(roc_auc_score(wrong, scores))
    assert np.isnan(auroc(scores, np.ones(200)))


def judged(count: int) -> list[Example]:
    draw = random.Random(0)
    made = []
    for _ in range(count):
        entropy = draw.random()
        vector = np.array([draw.gauss(0, 1) for _ in range(4)], dtype=np.float32)
        tokens = [TokenTrace(1, -entropy, entropy)] * draw.randrange(1, 30)
        made.append(Example(tokens, vector / np.linalg.norm(vector), draw.random() < entropy))
    return made


def test_detection_tells_a_good_signal_from_the_control_and_calibrates_both() -> None:
    examples = judged(400)
    wrong = np.array([one.is_wrong for one in examples], dtype=float)
    ways = {one.name: one for one in scored(examples, list(map(str, range(len(examples)))))}
    assert ways["mean_entropy"].auroc(wrong) > 0.75
    assert ways["length"].auroc(wrong) < 0.6
    assert ways[detection.LEARNT].auroc(wrong) > 0.75
    assert max(one.ece(wrong) for one in ways.values()) < 0.15
    low, high = detection.interval(wrong, ways["mean_entropy"], ways["length"])
    assert 0 < low < high < 0.5


def test_all_wordings_of_a_question_are_in_one_fold_and_folds_are_about_equal() -> None:
    groups = [f"question {number % 50}" for number in range(150)]
    fold = detection.folds(groups, seed=1)
    assert all(len(set(fold[number::50])) == 1 for number in range(50))
    assert np.bincount(fold).tolist() == [30] * 5
    assert fold.tolist() != detection.folds(groups, seed=2).tolist()


def test_true_probabilities_still_show_an_error_by_chance_and_less_with_more_answers() -> None:
    few, many = (unavoidable_ece(np.random.default_rng(0).random((1, count))) for count in (200, 5000))
    assert 0.1 > few > 2 * many > 0


# ── arms ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pool(count: int = 60, seed: int = 1) -> PoolState:
    """Doubt grows with the place; two dense topics, and one stray question that is the least sure of all."""
    draw = np.random.default_rng(seed)
    vectors = np.repeat(np.eye(2, 8), count // 2, axis=0) + 0.2 * draw.normal(size=(count, 8))
    vectors[-1] = np.eye(8)[7]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return PoolState(
        [f"q{place}" for place in range(count)],
        np.arange(count, dtype=float),
        np.arange(count, dtype=float),
        vectors.astype(np.float32),
        np.zeros((0, 8), np.float32),
        np.zeros(0),
        seed,
    )


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("count", [1, 15, 60])
def test_an_arm_chooses_so_many_different_ones_always_the_same(arm: str, count: int) -> None:
    chosen = ARMS[arm](pool(), count)
    assert len(set(chosen)) == len(chosen) == count
    assert set(chosen) <= set(pool().ids)
    assert chosen == ARMS[arm](pool(), count)


def test_the_active_arm_takes_the_unsure_and_leaves_the_stray_and_repeats() -> None:
    state = pool()
    state.vectors[-2] = state.vectors[-3]
    chosen = [int(id_[1:]) for id_ in dense_uncertain(state, 10)]
    assert 59 not in chosen
    assert len({57, 58} & set(chosen)) == 1
    assert np.mean(chosen) > 35
    others = [int(id_[1:]) for id_ in at_random(state, 10)]
    assert np.mean(chosen) > np.mean(others)


def test_of_what_was_logged_alike_the_active_arm_takes_what_is_doubted_now() -> None:
    state = replace(pool(), logged=np.ones(60))
    chosen = [int(id_[1:]) for id_ in dense_uncertain(state, 10)]
    assert np.mean(chosen) > 35


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────────

BUDGETS = [15, 30, 45]


def test_labels_to_an_accuracy_lie_on_the_line_between_rounds() -> None:
    curve = np.array([0.4, 0.6, 0.5])
    assert labels_needed(BUDGETS, curve, 0.5) == pytest.approx(22.5)
    assert labels_needed(BUDGETS, curve, 0.3) == 15
    assert labels_needed(BUDGETS, curve, 0.61) == float("inf")


def test_the_ratio_is_to_the_best_that_random_labels_came_to() -> None:
    random = np.array([0.4, 0.5, 0.6])
    assert ratio(BUDGETS, np.array([0.4, 0.6, 0.7]), random) == pytest.approx(30 / 45)
    assert ratio(BUDGETS, np.array([0.4, 0.4, 0.5]), random) == float("inf")
    assert np.isnan(ratio(BUDGETS, np.array([0.4, 0.6, 0.7]), np.array([0.4, 0.3, 0.2])))


def test_the_interval_holds_the_ratio_and_no_gain_never_looks_like_one() -> None:
    draw = np.random.default_rng(0)

    def scores(*shares: float) -> list[np.ndarray]:
        return [(draw.random((3, 400)) < np.array(shares)[:, None]).astype(float) for _ in range(5)]

    low, high = interval(BUDGETS, scores(0.2, 0.7, 0.9), scores(0.2, 0.4, 0.6))
    assert low <= (15 + 15 * 0.8) / 45 <= high < 0.75
    assert interval(BUDGETS, scores(0.5, 0.5, 0.5), scores(0.9, 0.9, 0.9))[1] == float("inf")


# ── the label harness ────────────────────────────────────────────────────────────────────────────────────────────

TINY = Plan("a fake", num_test=6, num_pool=12, warm_up=3, rounds=(2, 2))


class Trainer:
    """An adapter at random, which the number of labels decides; remembers what it was asked to learn."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, labelled: list[Item], seed: int) -> dict[str, bytes]:
        self.asked.append([item.group for item in labelled])
        return adapter_files(seed=seed + len(labelled), scale=0.1)


@pytest.fixture
def harness(tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(labels, "MAX_TOKENS", 4)
    monkeypatch.setattr(replicate, "MAX_TOKENS", 4)
    of = make_settings(tmp_path / "state", max_waiting=1000)

    def run(trainer: Trainer, plan: Plan = TINY, seeds: tuple[int, ...] = (1,)) -> list:
        console = Console(quiet=True)
        return labels.measured(
            console,
            plans={"mixed": plan},
            seeds=seeds,
            work=tmp_path / "work",
            of=of,
            trainer=lambda items: trainer,
        )

    return run


def test_both_arms_share_the_warm_up_and_train_on_all_labels_so_far(harness: Callable, tmp_path: Path) -> None:
    trainer = Trainer()
    found = harness(trainer)
    assert [len(asked) for asked in trainer.asked] == [3, 5, 7, 5, 7]
    warm, *active, first, second = trainer.asked[:5]
    assert all(asked[:3] == warm for asked in (*active, first, second))
    assert active[1][:5] == active[0]
    assert {"mixed"} == {one.point for one in found}
    rows = [json.loads(line) for line in (tmp_path / "work" / "rounds.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["round"]) for row in rows[:5]] == [
        ("warm-up", 0), ("active", 1), ("active", 2), ("random", 1), ("random", 2),
    ]  # fmt: skip
    assert all(len(row["lenient"]) == len(row["strict"]) == 6 for row in rows)
    assert all(len(row["uncertainty"]) == 12 - len(row["labelled"]) for row in rows)


def test_a_stopped_run_goes_on_where_it_was_and_comes_to_the_same(harness: Callable, tmp_path: Path) -> None:
    whole = harness(Trainer())
    file = tmp_path / "work" / "rounds.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:20])  # the fourth was cut off
    trainer = Trainer()
    assert harness(trainer) == whole
    assert [len(asked) for asked in trainer.asked] == [5, 7]
    again = file.read_text().splitlines(keepends=True)
    assert again[:3] == lines[:3]
    assert [json.loads(line)["labelled"] for line in again] == [json.loads(line)["labelled"] for line in lines]


def test_results_of_another_plan_are_not_taken_up(harness: Callable) -> None:
    harness(Trainer())
    trainer = Trainer()
    harness(trainer, Plan("a fake", num_test=6, num_pool=12, warm_up=4, rounds=(2,)))
    assert [len(asked) for asked in trainer.asked] == [4, 6, 6]


def test_a_domain_too_small_for_the_plan_is_refused(harness: Callable) -> None:
    with pytest.raises(ValueError, match="519 items of mixed are too few for 6 \\+ 600"):
        harness(Trainer(), Plan("a fake", num_test=6, num_pool=600))


def test_a_line_is_made_once(tmp_path: Path) -> None:
    named = {"plan": "p", "domain": "d", "seed": 1, "arm": "a", "round": 0}
    assert Notebook(tmp_path / "n.jsonl").get(named, lambda: {"figure": 1})["figure"] == 1
    assert Notebook(tmp_path / "n.jsonl").get(named, lambda: {"figure": 2})["figure"] == 1


def test_the_default_method_trains_a_portable_adapter(
    tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "CACHE", tmp_path)
    recipe = Recipe(rank=2, alpha=4, sft=SftSettings(max_steps=2, batch=2, replay_batch=2, warmup_steps=1))
    items = mixed()[:4]
    adapter = by_sft(make_settings(tmp_path), recipe, items)(items, 3)
    assert set(adapter) == {"adapter_config.json", "adapter_model.safetensors"}


# ── curation ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_planted_among_few_rows_is_dropped_with_its_reason_and_clean_rows_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curation, "ROWS", 2_000)
    found = curation.run(Console(quiet=True))
    judged = [one for one in found if one.is_met is not None]
    assert len(judged) > 7
    assert [one.name for one in judged if not one.is_met] == []
