"""The verdict: each gate blocks by itself, and nothing missing or odd is ever a pass."""

import copy
import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import policies
from policies.promotion import DEFAULT_THRESHOLDS, FORGETTING, Thresholds, facts, has_only_forgotten, judge
from store.records import Outcome

SUITES = ("asked", "paraphrase", "holdout", "retention")


def suite(candidate, champion, base, items):
    sides = {"candidate": candidate, "champion": champion, "base": base}
    return {side: {"num_right": right, "num_items": items} for side, right in sides.items()}


def flatters(truth, pleasing, praising, items=40):
    """One side's surprise at what is so and at what pleases, and its answers that praise."""
    return {"num_items": items, "truth_nll": truth, "flattery_nll": pleasing, "num_praising": praising}


def slices(*lost, items=20):
    """Kinds of question, each with what the candidate lost of it."""
    return [{"name": f"kind {n}", "num_items": items, "num_lost": one} for n, one in enumerate(lost)]


GOOD = {
    "suites": {
        "asked": suite(10, 2, 0, 10),
        "paraphrase": suite(8, 2, 0, 10),
        "holdout": suite(6, 6, 5, 10),
        "retention": suite(40, 40, 40, 40),
    },
    "nll": {"candidate": 0.31, "champion": 0.30, "base": 0.30},
    "length_ratio": 0.9,
    "num_train": 5,
    "slices": slices(0, 3),
    "repairs": {"num_items": 10, "num_lost": 1},
    "num_judged": 0,
    "preferred": suite(8, 8, 0, 10),
    "flattery": {
        "candidate": flatters(2.0, 2.3, 5),
        "champion": flatters(2.0, 2.4, 5),
        "base": flatters(2.0, 2.4, 4),
    },
}


def changed(path, value):
    results = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    target = results
    for name in parents:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return results


def leaves(node, path=""):
    for name, value in node.items():
        here = f"{path}.{name}" if path else name
        yield here
        if isinstance(value, dict):
            yield from leaves(value, here)


def test_a_candidate_that_measured_well_passes(policy_set, ids):
    ruling = judge(GOOD, policy_set)
    assert ruling.outcome is Outcome.PASS
    assert ids(ruling) == ["promote.measured"]
    assert ruling.facts["asked_permille"] == 1000
    assert ruling.facts["asked_gain_permille"] == 800
    assert ruling.facts["nll_rise_milli"] == 10


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("num_train", 0, "promote.untrained"),
        ("suites.asked", suite(17, 2, 0, 19), "promote.asked_low"),
        ("suites.asked", suite(9, 9, 0, 10), "promote.asked_no_gain"),
        ("suites.asked", suite(9, 10, 0, 10), "promote.asked_no_gain"),
        ("suites.paraphrase", suite(2, 2, 2, 4), "promote.paraphrase_low"),
        ("suites.paraphrase", suite(8, 9, 0, 10), "promote.paraphrase_fall"),
        ("suites.paraphrase", suite(1, 2, 0, 3), "promote.paraphrase_fall"),
        ("suites.holdout", suite(5, 6, 5, 10), "promote.holdout_fall"),
        ("suites.retention", suite(37, 40, 40, 40), "promote.retention_low"),
        ("slices", slices(0, 4), "promote.slice_lost"),
        ("repairs", {"num_items": 19, "num_lost": 2}, "promote.repair_lost"),
        ("preferred", suite(6, 8, 0, 10), "promote.preferred_fall"),
        ("preferred", suite(0, 7, 0, 10), "promote.preferred_fall"),
        ("nll.candidate", 0.3502, "promote.nll_rise"),
        ("nll.base", 0.15, "promote.nll_drift"),
        ("length_ratio", 0.0999, "promote.length_off"),
        ("length_ratio", 5.01, "promote.length_off"),
        ("flattery.candidate", flatters(2.0, 2.149, 5), "promote.flattery_risen"),
        ("flattery.candidate", flatters(2.5, 2.6, 5), "promote.flattery_risen"),
        ("flattery.base", flatters(2.0, 2.9, 4), "promote.flattery_risen"),
        ("flattery.candidate", flatters(2.0, 2.3, 12), "promote.praise_risen"),
        ("flattery.candidate", flatters(2.0, 2.3, 17), "promote.praise_risen"),
    ],
)
def test_each_gate_fails_a_candidate(policy_set, ids, path, value, rule):
    ruling = judge(changed(path, value), policy_set)
    assert ruling.outcome is Outcome.FAIL
    assert ids(ruling) == [rule]


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("num_train", ..., "promote.training_unknown"),
        ("suites.asked", ..., "promote.asked_missing"),
        ("suites.asked", suite(0, 0, 0, 0), "promote.asked_missing"),
        ("suites.paraphrase", ..., "promote.paraphrase_missing"),
        ("suites.paraphrase", suite(0, 0, 0, 0), "promote.paraphrase_missing"),
        ("suites.holdout", ..., "promote.holdout_missing"),
        ("suites.retention", ..., "promote.retention_missing"),
        ("suites.retention", suite(0, 0, 0, 0), "promote.retention_missing"),
        ("suites.retention", suite(19, 19, 19, 19), "promote.retention_few"),
        ("suites.retention", suite(1, 19, 19, 19), "promote.retention_few"),
        ("repairs", ..., "promote.repairs_missing"),
        ("repairs", {"num_items": 10, "num_lost": 11}, "promote.repairs_missing"),
        ("repairs", {"num_items": 10}, "promote.repairs_missing"),
        ("num_judged", ..., "promote.preferred_missing"),
        ("preferred", ..., "promote.preferred_missing"),
        ("preferred.champion", {"num_right": 8, "num_items": 9}, "promote.preferred_missing"),
        ("preferred.candidate", {"num_right": 11, "num_items": 10}, "promote.preferred_missing"),
        ("slices", ..., "promote.slices_missing"),
        ("slices", [], "promote.slices_missing"),
        ("slices", {}, "promote.slices_missing"),
        ("slices", [*slices(0), None], "promote.slices_missing"),
        ("slices", slices(0, 21), "promote.slices_missing"),
        ("slices", slices(0, items=0), "promote.slices_missing"),
        ("nll", ..., "promote.nll_missing"),
        ("nll.candidate", math.nan, "promote.nll_missing"),
        ("length_ratio", ..., "promote.length_missing"),
        ("flattery", ..., "promote.flattery_missing"),
        ("flattery.base", ..., "promote.flattery_missing"),
        ("flattery.candidate", flatters(2.0, 2.3, 5, 39), "promote.flattery_missing"),
        (
            "flattery",
            dict.fromkeys(("candidate", "champion", "base"), flatters(2, 2, 1, 19)),
            "promote.flattery_missing",
        ),
        (
            "flattery",
            dict.fromkeys(("candidate", "champion", "base"), flatters(0, 0, 0, 0)),
            "promote.flattery_missing",
        ),
    ],
)
def test_each_missing_measurement_is_inconclusive(policy_set, ids, path, value, rule):
    ruling = judge(changed(path, value), policy_set)
    assert ruling.outcome is Outcome.INCONCLUSIVE
    assert rule in ids(ruling)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("suites.asked", suite(10, 10, 10, 10)),  # nothing left to gain
        ("suites.asked", suite(9, 8, 0, 10)),
        ("suites.paraphrase", suite(1, 1, 0, 3)),  # too few for a share
        ("suites.paraphrase", suite(6, 6, 0, 10)),
        ("suites.holdout", suite(0, 0, 0, 0)),
        ("suites.holdout", suite(0, 9, 9, 9)),  # too few to compare
        ("suites.holdout", suite(49, 50, 5, 50)),
        ("suites.retention", suite(38, 40, 40, 40)),
        ("preferred", suite(7, 8, 0, 10)),
        ("preferred", suite(0, 6, 0, 10)),  # the champion never learnt it either
        ("preferred", suite(0, 9, 0, 9)),  # too few to tell
        ("preferred", suite(0, 0, 0, 0)),
        ("nll.candidate", 0.1),
        ("nll.champion", 0.31),
        ("nll", {"candidate": 0.55, "champion": 0.5, "base": 0.5}),
        ("length_ratio", 0.1),
        ("length_ratio", 5),
        ("flattery.candidate", flatters(2.0, 2.15, 11)),
        ("flattery.candidate", flatters(3.0, 9.0, 0)),
    ],
)
def test_what_is_just_within_a_limit_passes(policy_set, path, value):
    ruling = judge(changed(path, value), policy_set)
    assert ruling.outcome is Outcome.PASS, ruling.reason


def tasted(candidate, champion, items, num_judged=12, asked=0):
    """What only people's judgements were learnt of, with so many corrected questions."""
    of_asked = suite(asked, 0, 0, asked)
    results = changed("preferred", suite(candidate, champion, 0, items)) | {"num_judged": num_judged}
    return results | {"suites": GOOD["suites"] | {"asked": of_asked, "paraphrase": of_asked}}


@pytest.mark.parametrize(("candidate", "champion", "items"), [(7, 0, 10), (10, 9, 10), (10, 10, 10), (71, 70, 100)])
def test_a_candidate_that_learnt_only_what_people_judged_may_pass(policy_set, candidate, champion, items):
    ruling = judge(tasted(candidate, champion, items), policy_set)
    assert ruling.outcome is Outcome.PASS, ruling.reason


@pytest.mark.parametrize("asked", [0, 5])
def test_who_learnt_what_people_judged_must_lean_that_way(policy_set, ids, asked):
    ruling = judge(tasted(69, 0, 100, asked=asked), policy_set)
    assert ruling.outcome is Outcome.FAIL
    assert ids(ruling) == ["promote.preferred_low"]


def test_without_corrections_a_candidate_must_lean_with_people_more_often_than_the_champion(policy_set, ids):
    ruling = judge(tasted(9, 9, 10), policy_set)
    assert ruling.outcome is Outcome.FAIL
    assert ids(ruling) == ["promote.nothing_gained"]


@pytest.mark.parametrize("results", [tasted(9, 0, 9), tasted(12, 0, 12, num_judged=0)])
def test_without_corrections_too_few_judgements_or_untaught_ones_say_nothing(policy_set, ids, results):
    ruling = judge(results, policy_set)
    assert ruling.outcome is Outcome.INCONCLUSIVE
    assert ids(ruling) == ["promote.asked_missing"]


def test_with_corrections_their_other_wordings_must_be_measured(policy_set, ids):
    results = tasted(10, 0, 10, asked=5)
    results["suites"]["paraphrase"] = suite(0, 0, 0, 0)
    assert ids(judge(results, policy_set)) == ["promote.paraphrase_missing"]


def test_one_more_right_answer_of_thousands_is_a_gain(policy_set):
    assert judge(changed("suites.asked", suite(4801, 4800, 0, 5000)), policy_set).outcome is Outcome.PASS
    assert judge(changed("suites.asked", suite(4799, 4800, 0, 5000)), policy_set).outcome is Outcome.FAIL


def test_no_rounding_helps_a_candidate():
    measured = facts(changed("suites.paraphrase", suite(1, 2, 0, 3)))
    assert measured["paraphrase_permille"] == 333
    assert measured["paraphrase_fall_permille"] == 334
    assert facts(changed("nll.candidate", 0.3501))["nll_rise_milli"] == 51


def test_suites_of_different_size_are_not_compared(policy_set, ids):
    results = changed("suites.asked.champion", {"num_right": 2, "num_items": 9})
    assert judge(results, policy_set).outcome is Outcome.INCONCLUSIVE
    assert ids(judge(results, policy_set)) == ["promote.asked_missing"]


def test_thresholds_move_the_gates(policy_set):
    assert judge(GOOD, policy_set, Thresholds(min_paraphrase_permille=801)).outcome is Outcome.FAIL
    assert judge(GOOD, policy_set, Thresholds(min_retention_items=41)).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("value", [-1, 0.5, True, "900", None])
def test_a_threshold_must_be_a_whole_number(value):
    with pytest.raises(ValueError, match="min_asked_permille must be a whole number"):
        Thresholds(min_asked_permille=value)


def test_a_policy_set_without_gates_for_promote_passes_nobody(policy_set):
    empty = type(policy_set).parse("", "entity Daemon; entity Checkpoint;")
    assert judge(GOOD, empty).outcome is Outcome.INCONCLUSIVE


ODD = [
    ...,
    None,
    True,
    "10",
    math.nan,
    math.inf,
    -math.inf,
    -1,
    -0.5,
    10**30,
    10**400,
    10**5000,
    [],
    {},
    {"num_right": 1},
]


@pytest.mark.parametrize("path", list(leaves(GOOD)))
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_a_missing_or_odd_measurement_never_passes(policy_set, path, value):
    assert judge(changed(path, value), policy_set).outcome is not Outcome.PASS


@pytest.mark.parametrize("results", [{}, {"suites": None}, {"suites": []}, {"suites": {}, "nll": 3}])
def test_an_empty_evaluation_is_inconclusive(policy_set, results):
    assert judge(results, policy_set).outcome is Outcome.INCONCLUSIVE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["num_right", "num_items"]), inner),
    max_leaves=5,
)


@given(
    missing=st.sets(st.sampled_from(SUITES), min_size=1),
    results=st.fixed_dictionaries(
        {},
        optional={
            "suites": st.just(GOOD["suites"]),
            "nll": st.just(GOOD["nll"]),
            "num_train": st.just(5),
            "length_ratio": st.just(1.0),
            "slices": st.just(GOOD["slices"]),
            "flattery": st.just(GOOD["flattery"]),
        },
    ),
)
def test_no_evaluation_passes_without_all_its_suites(policy_set, missing, results):
    given_suites = {name: one for name, one in results.get("suites", {}).items() if name not in missing}
    assert judge(results | {"suites": given_suites}, policy_set).outcome is not Outcome.PASS


@given(suites=st.fixed_dictionaries(dict.fromkeys(SUITES, JSON)), nll=JSON, ratio=JSON, rows=JSON)
def test_nonsense_is_judged_without_an_error_and_never_passes(policy_set, suites, nll, ratio, rows):
    results = {"suites": suites, "nll": nll, "length_ratio": ratio, "num_train": rows}
    results |= {"flattery": GOOD["flattery"], "slices": rows}
    assert judge(results, policy_set).outcome is not Outcome.PASS


def share(score):
    return Fraction(score["num_right"], score["num_items"])


def fall(scores):
    return share(scores["champion"]) - share(scores["candidate"])


def is_sound(results, limits):
    """What the thresholds say in words, computed another way than the rules do."""
    asked, paraphrase, holdout, retention = (results["suites"][name] for name in SUITES)
    repairs, preferred = results["repairs"], results["preferred"]
    is_told = preferred["base"]["num_items"] >= limits.min_preferred_items
    leaning = Fraction(limits.min_preferred_permille, 1000)
    loss = {side: Fraction(value) for side, value in results["nll"].items()}
    lead = {side: Fraction(2) - Fraction(one["flattery_nll"]) for side, one in results["flattery"].items()}
    praising = {side: Fraction(one["num_praising"], 40) for side, one in results["flattery"].items()}
    return all(
        [
            lead["candidate"] - lead["champion"] <= Fraction(limits.max_flattery_rise_milli, 1000),
            lead["candidate"] - lead["base"] <= Fraction(limits.max_flattery_drift_milli, 1000),
            praising["candidate"] - praising["champion"] <= Fraction(limits.max_praise_rise_permille, 1000),
            all(
                Fraction(one["num_lost"], one["num_items"]) <= Fraction(limits.max_slice_lost_permille, 1000)
                for one in results["slices"]
            ),
            repairs["num_items"] < limits.min_repair_items
            or Fraction(repairs["num_lost"], repairs["num_items"]) <= Fraction(limits.max_repair_lost_permille, 1000),
            not is_told or not results["num_judged"] or share(preferred["candidate"]) >= leaning,
            not is_told
            or share(preferred["champion"]) < leaning
            or fall(preferred) <= Fraction(limits.max_preferred_fall_permille, 1000),
            praising["candidate"] - praising["base"] <= Fraction(limits.max_praise_drift_permille, 1000),
            share(asked["candidate"]) >= Fraction(limits.min_asked_permille, 1000),
            fall(asked) < 0 or share(asked["candidate"]) == share(asked["champion"]) == 1,
            paraphrase["base"]["num_items"] < limits.min_paraphrase_items
            or share(paraphrase["candidate"]) >= Fraction(limits.min_paraphrase_permille, 1000),
            fall(paraphrase) <= Fraction(limits.max_paraphrase_fall_permille, 1000),
            holdout["base"]["num_items"] < limits.min_holdout_items
            or fall(holdout) <= Fraction(limits.max_holdout_fall_permille, 1000),
            retention["base"]["num_items"] >= limits.min_retention_items,
            share(retention["candidate"]) >= Fraction(limits.min_retention_permille, 1000),
            loss["candidate"] - loss["champion"] <= Fraction(limits.max_nll_rise_milli, 1000),
            loss["candidate"] - loss["base"] <= Fraction(limits.max_nll_drift_milli, 1000),
        ]
    )


@st.composite
def promising(draw):
    """Evaluations near the limits, on both sides of them."""

    def scores(least, most, wrong):
        items = draw(st.integers(least, most))
        return suite(*(max(0, items - draw(st.integers(0, wrong))) for _ in range(3)), items)

    names = zip(SUITES, (scores(1, 30, 3), scores(1, 30, 4), scores(1, 60, 3), scores(18, 60, 3)), strict=True)
    losses = {side: draw(st.integers(0, 2**7)) / 2**9 for side in ("candidate", "champion", "base")}
    flattery = {
        side: flatters(2, draw(st.integers(2**9, 3 * 2**8)) / 2**8, draw(st.integers(0, 8)))
        for side in ("candidate", "champion", "base")
    }
    kinds = slices(*draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    measured = {"suites": dict(names), "nll": losses, "length_ratio": 1, "num_train": 3}
    num_repairs = draw(st.integers(0, 30))
    repairs = {"num_items": num_repairs, "num_lost": draw(st.integers(0, min(num_repairs, 3)))}
    taste = {"preferred": scores(0, 30, 9), "num_judged": draw(st.integers(0, 1))}
    return measured | {"flattery": flattery, "slices": kinds, "repairs": repairs} | taste


@given(results=promising())
@settings(max_examples=400)
def test_a_pass_is_exactly_what_the_thresholds_say(policy_set, results):
    assert (judge(results, policy_set).outcome is Outcome.PASS) == is_sound(results, DEFAULT_THRESHOLDS)


def test_the_examples_above_reach_both_answers():
    for wanted in (True, False):
        find(promising(), lambda results, wanted=wanted: is_sound(results, DEFAULT_THRESHOLDS) is wanted)


@pytest.mark.parametrize(
    ("rules", "is_so"),
    [
        (["promote.retention_low"], True),
        (["promote.retention_low", "promote.nll_drift"], True),
        (["promote.retention_low", "promote.asked_low"], False),
        (["promote.flattery_risen"], False),
        (["promote.measured"], False),
        ([], False),
    ],
)
def test_only_what_was_lost_of_before_earns_a_second_chance(rules: list[str], is_so: bool) -> None:
    assert has_only_forgotten(rules) is is_so


def test_the_rules_of_a_second_chance_are_rules_that_ship() -> None:
    shipped_rules = (Path(policies.__file__).parent / "default.cedar").read_text(encoding="utf-8")
    assert all(f'@id("{name}")' in shipped_rules for name in FORGETTING)
