"""What people's judgements say of an uncertainty: how often it is right, and the probability of being wrong."""

import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from agent.certainty import MIN_JUDGED, Judged, aurc, calibrate, ece, report


def judged(count: int, *, seed: int = 0, sharpness: float = 1.0) -> list[Judged]:
    """Answers whose P(wrong) is their uncertainty squared, where `sharpness` is 1; noise where it is 0."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        uncertainty = draw.random()
        wrong = draw.random() < (uncertainty**2 if draw.random() < sharpness else 0.5)
        made.append(Judged(uncertainty, draw.randrange(1, 50), wrong))
    return made


def test_a_higher_uncertainty_never_means_a_lower_probability_and_it_follows_what_was_judged() -> None:
    calibration = calibrate(judged(2000))
    assert calibration is not None
    found = [calibration.probability(at) for at in np.linspace(-1, 2, 50)]
    assert found == sorted(found)
    for at in (0.2, 0.5, 0.8):
        assert calibration.probability(at) == pytest.approx(at**2, abs=0.1)


def test_no_probability_is_certain_for_want_of_data() -> None:
    calibration = calibrate([Judged(number, 5, number >= 15) for number in range(30)])
    assert calibration is not None
    assert 0.01 < calibration.probability(-5) < 0.1
    assert 0.9 < calibration.probability(99) < 0.99


def test_an_uncertainty_that_is_the_wrong_way_round_says_the_overall_rate_and_never_less_where_there_is_more() -> None:
    calibration = calibrate([Judged(number, 5, number < 10) for number in range(40)])
    assert calibration is not None
    found = [calibration.probability(at) for at in np.linspace(-1, 41, 50)]
    assert found == sorted(found)
    assert found == pytest.approx([0.25] * 50, abs=0.05)


def test_what_is_said_is_so_on_judgements_it_was_not_fitted_to() -> None:
    fitted, fresh = calibrate(judged(1500)), judged(1500, seed=1)
    assert fitted is not None
    said = np.array([fitted.probability(one.uncertainty) for one in fresh])
    assert ece(said, np.array([one.is_wrong for one in fresh], dtype=float)) < 0.05


def test_a_report_tells_a_good_uncertainty_from_a_useless_one_beside_the_length() -> None:
    good, useless = report(judged(1000)), report(judged(1000, sharpness=0.0))
    assert good is not None
    assert useless is not None
    assert good.auroc > 0.8
    assert max(good.length_auroc, useless.auroc) < 0.6
    assert good.aurc < 0.2 < useless.aurc
    assert good.ece < 0.06
    assert (good.num_judged, good.num_wrong) == (1000, sum(one.is_wrong for one in judged(1000)))


@pytest.mark.parametrize(
    "few",
    [
        [],
        judged(MIN_JUDGED - 1),
        [Judged(number, 5, True) for number in range(50)],
        [Judged(number, 5, False) for number in range(50)],
    ],
)
def test_with_too_few_judgements_or_of_one_kind_nothing_is_claimed(few: list[Judged]) -> None:
    assert calibrate(few) is None
    assert report(few) is None


def test_the_area_is_that_of_every_cut_and_does_not_depend_on_the_order_of_equals() -> None:
    wrong = np.array([0.0, 0.0, 1.0, 1.0])
    assert aurc(np.array([1.0, 2.0, 3.0, 4.0]), wrong) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    tied = np.array([1.0, 1.0, 1.0, 1.0])
    assert aurc(tied, wrong) == aurc(tied, wrong[::-1]) == pytest.approx(0.5)


def test_equal_uncertainties_count_half() -> None:
    found = report([Judged(1.0, 1, number % 2 == 0) for number in range(40)])
    assert found is not None
    assert found.auroc == roc_auc_score([1, 0], [1, 1]) == 0.5
