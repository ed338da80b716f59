"""What is worth asking a person about: each factor by itself, and the batch that comes of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.acquisition.choosing import (
    CLUSTER_SHARE,
    RANDOM_SHARE,
    WARM_UP,
    WIDER,
    Choice,
    Plan,
    among,
    choose,
    plan,
    reason,
    shortlist,
    wider,
)
from agent.acquisition.factors import (
    MAX_PER_PERSON,
    MIN_WINDOW,
    NEIGHBOURS,
    REPEAT_COSINE,
    SEARCHED,
    Cheap,
    Log,
    cheap_factors,
    demand,
    density,
    likely_wrong,
    ranked,
    ranked_again,
    repairability,
    score,
    times_asked,
)
from agent.acquisition.lift import Outcome, lift, outcomes
from store.records import Arm, LabelState

DIM = 32
PICK = Plan(0, 0, 1)


def log_of(count: int, **columns: object) -> Log:
    """Answers alike in everything but what is named."""
    values = {
        "uncertainty": np.full(count, 1.0),
        "checkpoint": np.zeros(count, dtype=np.int64),
        "principal": np.zeros(count, dtype=np.int64),
        "question": np.arange(count),
        "repairability": np.ones(count),
        "is_open": np.ones(count, dtype=np.bool_),
        "doubt": np.full(count, np.nan),
        "doubted_by": np.zeros(count, dtype=np.int64),
    }
    return Log(**(values | {name: np.asarray(column) for name, column in columns.items()}))


def directions(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors, none near another."""
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def chosen(
    log: Log,
    planned: Plan,
    *,
    vectors: np.ndarray | None = None,
    cosine: np.ndarray | None = None,
    taken: np.ndarray | None = None,
    left: list[int] | None = None,
    share_wrong: np.ndarray | None = None,
    cheap: Cheap | None = None,
    seed: int = 0,
    size: int = 1000,
) -> list[Choice]:
    """A batch. `cosine` is what each answer's neighbours have, one half if not told."""
    draw = np.random.default_rng(seed)
    count = len(log.uncertainty)
    vectors = directions(count) if vectors is None else vectors
    cosine = np.full(count, 0.5) if cosine is None else cosine
    cheap = cheap or cheap_factors(log)
    short = shortlist(log, cheap, planned, draw, size)
    return choose(
        log,
        cheap,
        short,
        vectors=vectors[short.places],
        cosines=np.repeat(cosine[short.places, None], SEARCHED, axis=1).astype(np.float32),
        share_wrong=None if share_wrong is None else share_wrong[short.places],
        taken=np.empty((0, DIM), np.float32) if taken is None else taken,
        left=np.array(left or [10**6] * (int(log.principal.max(initial=0)) + 1)),
        draw=draw,
    )


# ── factors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_uncertainty_counts_by_rank_among_recent_answers_of_the_same_checkpoint() -> None:
    rank, _ = ranked(np.array([1.0, 2.0, 3.0, 4.0, 10.0, 20.0]), np.array([0, 0, 0, 0, 1, 1]))
    assert rank.tolist() == [0.25, 0.5, 0.75, 1.0, 0.5, 1.0]
    rank, _ = ranked(np.array([9.0, 9.0, 1.0, 2.0]), np.zeros(4, dtype=int), window=2)
    assert rank.tolist() == [1.0, 1.0, 0.5, 1.0]


def test_what_is_near_wrong_answers_is_likely_wrong_however_sure() -> None:
    rank = np.array([0.9, 0.1, 0.5])
    assert likely_wrong(rank, np.array([0.2, 0.9, 0.6])) == pytest.approx([0.55, 0.5, 0.55])
    assert likely_wrong(rank, None).tolist() == rank.tolist()
    log = log_of(4, uncertainty=[1.0, 1.1, 1.2, 1.3])
    assert chosen(log, PICK)[0].place == 3
    assert chosen(log, PICK, share_wrong=np.array([0.2, 0.3, 0.9, 0.1]))[0].place == 2


def test_what_was_asked_again_is_ranked_among_the_last_answers_of_who_answers_now() -> None:
    log = log_of(
        MIN_WINDOW + 3,
        uncertainty=[*np.arange(MIN_WINDOW) / MIN_WINDOW, 9.0, 8.0, 7.0],
        checkpoint=[1] * MIN_WINDOW + [0] * 3,
        doubt=[*[np.nan] * MIN_WINDOW, 0.1, np.nan, 0.5],
        doubted_by=np.ones(MIN_WINDOW + 3, dtype=int),
    )
    again, is_outlier = ranked_again(log)
    assert not is_outlier.any()
    assert np.isnan(again[[0, MIN_WINDOW - 1, MIN_WINDOW + 1]]).all()
    assert again[[MIN_WINDOW, MIN_WINDOW + 2]] == pytest.approx([6 / MIN_WINDOW, 26 / MIN_WINDOW])
    assert cheap_factors(log).rank[[MIN_WINDOW, MIN_WINDOW + 1]] == pytest.approx([6 / MIN_WINDOW, 2 / 3])


def test_doubts_of_another_kind_than_the_logs_are_ranked_among_each_other() -> None:
    log = log_of(
        MIN_WINDOW + 3,
        uncertainty=[*np.arange(MIN_WINDOW) / MIN_WINDOW, 9.0, 8.0, 7.0],
        checkpoint=[1] * (MIN_WINDOW + 3),
        doubt=[*[np.nan] * MIN_WINDOW, 100.0, np.nan, 200.0],
        doubted_by=np.ones(MIN_WINDOW + 3, dtype=int),
        is_doubt_as_logged=False,
    )
    again, is_outlier = ranked_again(log)
    assert again[[MIN_WINDOW, MIN_WINDOW + 2]] == pytest.approx([0.5, 1.0])
    assert not is_outlier.any()


def test_while_it_has_answered_little_what_it_was_asked_again_counts_each_question_once() -> None:
    log = log_of(
        5,
        uncertainty=[0.2, 5.0, 5.0, 5.0, 4.0],
        checkpoint=[1, 0, 0, 0, 0],
        question=[1, 2, 2, 2, 3],
        doubt=[np.nan, 0.1, 0.1, 0.1, 0.3],
        doubted_by=np.ones(5, dtype=int),
    )
    assert ranked_again(log)[0][1:] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0])


def test_what_answers_now_is_less_sure_of_than_of_nearly_all_is_an_outlier_however_it_was_once() -> None:
    log = log_of(
        MIN_WINDOW + 2,
        uncertainty=[*np.arange(MIN_WINDOW) / MIN_WINDOW, 2.0, 1.0],
        checkpoint=[1] * MIN_WINDOW + [0] * 2,
        doubt=[*[np.nan] * MIN_WINDOW, 3.0, 0.5],
        doubted_by=np.ones(MIN_WINDOW + 2, dtype=int),
    )
    assert np.flatnonzero(cheap_factors(log).is_outlier[MIN_WINDOW:]).tolist() == [0]


def test_a_closer_look_is_at_more_of_what_is_picked_of_each_person_too_and_at_these_alone() -> None:
    assert wider(Plan(0, 3, 5)).look == WIDER
    assert wider(Plan(15, 0, 0)) == Plan(15, 0, 0)
    log = log_of(99, uncertainty=np.arange(99.0))
    first = chosen(log, wider(Plan(0, 1, 2)), left=[3])
    assert Counter(one.arm for one in first) == {Arm.RANDOM: 1, Arm.DENSE_UNCERTAIN: 2 * WIDER}
    picked = [one for one in first if one.arm is Arm.DENSE_UNCERTAIN]
    doubt = np.full(99, np.nan)
    for number, one in enumerate(picked):
        doubt[one.place] = number
    log = replace(log, doubt=doubt, doubted_by=np.ones(99, dtype=np.int64))
    short = among(picked, Plan(0, 1, 2))
    found = choose(
        log,
        cheap_factors(log),
        short,
        vectors=directions(99)[short.places],
        cosines=np.full((len(picked), SEARCHED), 0.5, np.float32),
        share_wrong=None,
        taken=np.empty((0, DIM), np.float32),
        left=np.array([9]),
        draw=np.random.default_rng(0),
    )
    assert [one.arm for one in found] == [Arm.DENSE_UNCERTAIN] * 2
    assert found[0].place == picked[-1].place
    assert {one.cluster for one in found} <= {one.cluster for one in picked}
    assert len({one.cluster for one in found}) == 2  # of two, one at most from a cluster


def test_an_answer_without_tokens_has_no_rank_and_changes_none() -> None:
    rank, is_outlier = ranked(np.array([np.nan, 1.0, 2.0, np.nan]), np.zeros(4, dtype=int))
    assert rank.tolist() == [0.0, 0.5, 1.0, 0.0]
    assert not is_outlier.any()


def test_the_top_two_percent_are_outliers_once_there_are_enough_to_tell() -> None:
    assert np.flatnonzero(ranked(np.arange(200.0), np.zeros(200, dtype=int))[1]).tolist() == [196, 197, 198, 199]
    assert not ranked(np.arange(49.0), np.zeros(49, dtype=int))[1].any()
    assert not ranked(np.ones(200), np.zeros(200, dtype=int))[1].any()


def test_demand_counts_a_person_up_to_a_cap() -> None:
    question = np.array([7] * 9 + [8, 8, 9])
    principal = np.array([0] * 9 + [0, 1, 2])
    assert times_asked(question, principal).tolist() == [MAX_PER_PERSON] * 9 + [2, 2, 1]
    assert demand(np.array([1, 2, 9])).tolist() == [0.5, 2 / 3, 0.9]
    assert len(times_asked(np.array([], dtype=int), np.array([], dtype=int))) == 0


def test_density_is_the_mean_cosine_of_the_ten_nearest_that_are_no_repeats() -> None:
    near = [1.0, REPEAT_COSINE, *np.linspace(0.9, 0.45, NEIGHBOURS), 0.1, 0.1]
    assert density(np.array([near], dtype=np.float32))[0] == pytest.approx(np.mean(near[2:12]))
    few = [0.8, 0.4, np.nan, np.nan]
    assert density(np.array([few], dtype=np.float32))[0] == pytest.approx(0.6)
    assert density(np.array([[-0.5, -0.6]], dtype=np.float32))[0] == 0.0


def test_a_question_that_has_copies_alone_is_as_dense_as_the_middle() -> None:
    cosines = np.array([[1.0] * 3, [0.2] * 3, [0.6] * 3, [0.9] * 3], dtype=np.float32)
    assert density(cosines) == pytest.approx([0.6, 0.2, 0.6, 0.9])
    assert density(np.full((2, 3), np.nan, dtype=np.float32)).tolist() == [0.5, 0.5]


def test_repairability_falls_with_the_questions_a_person_skipped() -> None:
    found = repairability(["new", "helps", "skips"], {"helps": (4, 4), "skips": (0, 4)})
    assert found.tolist() == [1.0, 1.0, 0.2]


@given(product=st.floats(0, 1), more=st.floats(0, 1), dense=st.floats(0, 1))
def test_scores_lie_between_zero_and_one_and_never_fall_as_a_factor_grows(
    product: float, more: float, dense: float
) -> None:
    low, high = sorted((product, more))
    scores = score(np.array([low, high]), np.array([dense, dense]))
    assert 0.0 <= scores[0] <= scores[1] <= 1.0


FACTORS = {
    "uncertainty": {"uncertainty": [1.0, 1.0, 2.0, 1.0]},
    "demand": {"question": [0, 1, 2, 2], "is_open": [True, True, True, False]},
    "repairability": {"repairability": [0.5, 0.5, 1.0, 0.5]},
}


@pytest.mark.parametrize("columns", FACTORS.values(), ids=FACTORS)
def test_each_cheap_factor_matters(columns: dict[str, list[float]]) -> None:
    assert [choice.place for choice in chosen(log_of(4, **columns), PICK)] == [2]


def test_density_matters() -> None:
    assert [choice.place for choice in chosen(log_of(4), PICK, cosine=np.array([0.5, 0.5, 0.6, 0.5]))] == [2]


# ── a batch ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_questions_are_a_warm_up() -> None:
    assert plan(5, {}) == Plan(5, 0, 0)
    assert plan(5, {Arm.WARM_UP: WARM_UP - 2}) == Plan(2, 0, 0)
    assert plan(5, {Arm.WARM_UP: WARM_UP}).num_warm_up == 0
    assert plan(5, {None: 40}).num_warm_up == 0


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_the_control_arm_has_its_share_over_batches_of_any_size(sizes: list[int]) -> None:
    asked: dict[Arm | None, int] = {Arm.WARM_UP: WARM_UP}
    for size in sizes:
        planned = plan(size, asked)
        assert planned.num_random + planned.num_picked == size
        asked[Arm.RANDOM] = asked.get(Arm.RANDOM, 0) + planned.num_random
        asked[Arm.DENSE_UNCERTAIN] = asked.get(Arm.DENSE_UNCERTAIN, 0) + planned.num_picked
        assert abs(asked[Arm.RANDOM] - RANDOM_SHARE * (asked[Arm.RANDOM] + asked[Arm.DENSE_UNCERTAIN])) <= 0.5


def test_a_warm_up_takes_the_densest_however_sure_they_are() -> None:
    cosine = np.linspace(0.2, 0.8, 40)
    found = chosen(log_of(40, uncertainty=np.linspace(5.0, 1.0, 40)), Plan(1, 0, 0), cosine=cosine)
    assert [(choice.place, choice.arm) for choice in found] == [(39, Arm.WARM_UP)]
    assert found[0].density == pytest.approx(0.8)


@pytest.mark.parametrize("planned", [Plan(6, 0, 0), Plan(0, 2, 4), Plan(0, 6, 0)])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_taken_is_closed_or_an_outlier_is_never_asked_in_any_arm(planned: Plan, seed: int) -> None:
    draw = np.random.default_rng(seed)
    is_open = draw.random(200) < 0.5
    vectors = directions(200)
    log = log_of(200, uncertainty=draw.permutation(200.0 * np.arange(200)), is_open=is_open)
    taken = vectors[::2] + 0.01 * directions(100, seed=9)  # near them, not the same
    found = chosen(log, planned, vectors=vectors, taken=taken, seed=seed)
    assert found
    for choice in found:
        assert is_open[choice.place]
        assert choice.place % 2 == 1
        assert choice.rank < 0.985


@pytest.mark.parametrize("planned", [Plan(8, 0, 0), Plan(0, 4, 4), Plan(0, 0, 8)])
def test_two_that_are_nearly_the_same_are_not_in_one_batch(planned: Plan) -> None:
    vectors = np.repeat(directions(10), 6, axis=0) + 0.005 * directions(60, seed=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = chosen(log_of(60), planned, vectors=vectors)
    assert len({choice.place // 6 for choice in found}) == len(found) > 1


def test_no_cluster_has_more_than_its_share_of_what_is_picked() -> None:
    centres = np.eye(8, DIM)
    cluster = np.repeat(np.arange(8), 25)
    vectors = (0.8 * centres[cluster] + 0.6 * directions(200)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unsure_where = np.where(cluster == 3, 2.0, 1.0) + np.arange(200) / 1000
    found = chosen(log_of(200, uncertainty=unsure_where), Plan(0, 0, 12), vectors=vectors)
    counts = np.bincount(cluster[[choice.place for choice in found]])
    assert len(found) == 12
    assert counts.max() <= 12 * CLUSTER_SHARE


def test_no_person_is_asked_about_more_than_their_budget_leaves() -> None:
    principal = np.repeat([0, 1, 2], 20)
    found = chosen(log_of(60, principal=principal), Plan(0, 4, 8), left=[2, 0, 3])
    counts = np.bincount(principal[[choice.place for choice in found]], minlength=3)
    assert counts.tolist() == [2, 0, 3]


def test_the_same_seed_chooses_the_same_and_another_draws_others_at_random() -> None:
    log = log_of(500, uncertainty=np.random.default_rng(1).random(500))
    planned = Plan(0, 5, 5)
    assert chosen(log, planned, seed=3) == chosen(log, planned, seed=3)
    drawn = [{c.place for c in chosen(log, planned, seed=seed) if c.arm is Arm.RANDOM} for seed in (3, 4)]
    assert drawn[0] != drawn[1]


def test_the_control_arm_does_not_look_at_scores() -> None:
    """Over many seeds it takes the sure as often as the unsure."""
    log = log_of(100, uncertainty=np.repeat([0.0, 1.0], 50))
    places = [c.place for seed in range(200) for c in chosen(log, Plan(0, 2, 0), seed=seed)]
    assert len(places) == 400
    assert 160 < sum(place < 50 for place in places) < 240


def test_one_question_that_many_ask_has_one_place_on_the_shortlist() -> None:
    log = log_of(30, question=[0] * 20 + list(range(1, 11)), principal=np.arange(30))
    short = shortlist(log, cheap_factors(log), PICK, np.random.default_rng(0), 5)
    assert short.places.tolist() == [19, 29, 28, 27, 26]  # the newest of equals


def test_a_log_with_nothing_open_gives_nothing() -> None:
    for planned in (Plan(5, 0, 0), Plan(0, 2, 3)):
        assert chosen(log_of(4, is_open=np.zeros(4, dtype=bool)), planned) == []
        assert chosen(log_of(0), planned) == []


# ── what people are told ─────────────────────────────────────────────────────────────────────────────────────────────

PICKED = Choice(3, Arm.DENSE_UNCERTAIN, 0.7, 0.75, 1, 0.61, 0)


def test_each_question_says_in_plain_words_why_it_is_asked() -> None:
    told = "less sure than 75% of recent answers"
    assert reason(PICKED, None) == f"{told}, and like other questions to 61%"
    assert reason(PICKED, 0.4).startswith(f"wrong with 40%, as such answers were judged; {told}")
    assert "asked 4 times" in reason(replace(PICKED, times=4), None)
    assert reason(replace(PICKED, arm=Arm.RANDOM), 0.4) == "picked at random, to measure whether picking helps"
    assert "typical of what is asked here" in reason(replace(PICKED, arm=Arm.WARM_UP), None)


def test_each_arm_is_judged_by_the_wrong_answers_its_questions_found() -> None:
    counts = {
        Arm.DENSE_UNCERTAIN: {LabelState.ANSWERED: 6, LabelState.RIGHT: 2, LabelState.SKIPPED: 1, LabelState.OPEN: 3},
        Arm.RANDOM: {LabelState.OPEN: 2},
        None: {LabelState.ANSWERED: 9},
    }
    found = outcomes(counts)
    picked = found[Arm.DENSE_UNCERTAIN]
    assert (picked.num_asked, picked.num_judged, picked.num_wrong, picked.share_wrong) == (12, 8, 6, 0.75)
    assert (found[Arm.RANDOM].num_asked, found[Arm.RANDOM].share_wrong) == (2, None)
    assert found[Arm.WARM_UP].num_asked == 0
    assert lift(found) is None


def test_what_picking_gains_has_the_interval_of_a_difference_of_shares() -> None:
    found = {Arm.DENSE_UNCERTAIN: Outcome(80, 70, 56), Arm.RANDOM: Outcome(80, 80, 48)}
    gained = lift(found)
    assert gained is not None
    # Newcombe's own example: 56 of 70 against 48 of 80
    assert (gained.gain, gained.low, gained.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
