"""The rate of a run: up, slowly down, and quickly down to nothing once the lessons are learnt about."""

import pytest

from agent.cooling import CoolingRate


@pytest.fixture
def rate() -> CoolingRate:
    return CoolingRate(warmup=4, steps=104, share=0.25)


def test_it_rises_over_the_warm_up_and_then_falls_slowly_to_nothing(rate: CoolingRate) -> None:
    assert [rate(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [rate(step) for step in (54, 104, 105)] == [0.5, 0.0, 0.0]
    assert rate.last == 104


def test_once_told_to_cool_it_falls_to_nothing_in_a_quarter_more_of_the_steps(rate: CoolingRate) -> None:
    rate.cool(40)
    shares = [rate(step) for step in range(40, 51)]
    assert rate.last == 50
    assert shares[0] == 0.64
    assert shares == sorted(shares, reverse=True)
    assert shares[5] == pytest.approx(0.59 / 2)
    assert shares[-1] == 0.0


def test_what_is_told_later_changes_nothing(rate: CoolingRate) -> None:
    rate.cool(40)
    rate.cool(44)
    assert rate.last == 50


def test_it_never_takes_more_steps_than_there_are(rate: CoolingRate) -> None:
    rate.cool(100)
    assert rate.last == 104
    assert rate(104) == 0.0


def test_without_a_share_it_is_over_at_once() -> None:
    rate = CoolingRate(warmup=0, steps=8, share=0.0)
    rate.cool(3)
    assert (rate.last, rate(3)) == (3, 0.0)


def test_a_run_as_short_as_its_warm_up_has_a_rate() -> None:
    assert [CoolingRate(warmup=2, steps=2, share=1.0)(step) for step in range(3)] == [0.5, 1.0, 0.0]
