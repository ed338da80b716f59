"""One number an answer, from its tokens' figures: each signal by its name."""

import pytest

from agent.uncertainty import DEFAULT_SIGNAL, SIGNALS, mean_entropy, signal
from store.records import TokenTrace

TOKENS = [TokenTrace(1, -0.1, 0.5), TokenTrace(2, -5.0, 1.0), TokenTrace(3, -0.3, 3.0), TokenTrace(4, -0.2, 0.1)]


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("mean_entropy", 4.6 / 4),
        ("peak_entropy", 4.5 / 3),
        ("mean_nll", 5.6 / 4),
        ("sum_nll", 5.6),
        ("early_nll", 5.6),
        ("max_nll", 5.0),
        ("length", 4.0),
    ],
)
def test_each_signal_is_what_its_name_says(name: str, figure: float) -> None:
    assert signal(name)(TOKENS) == pytest.approx(figure)


def test_the_first_words_count_for_the_early_signal_and_what_follows_does_not() -> None:
    rambling = [*TOKENS, *[TokenTrace(5, 0.0, 0.0)] * 8, *[TokenTrace(6, -9.0, 9.0)] * 20]
    assert signal("early_nll")(rambling) == pytest.approx(5.6)


def test_repeating_itself_makes_an_answer_no_surer_at_its_peaks() -> None:
    looping = [*TOKENS, *[TokenTrace(7, -0.01, 0.01)] * 60]
    assert signal("mean_entropy")(looping) < 0.1
    assert signal("peak_entropy")(looping) == pytest.approx(1.5)


def test_a_sure_answer_scores_zero() -> None:
    assert mean_entropy([TokenTrace(1, 0.0, 0.0)]) == 0.0


@pytest.mark.parametrize("name", SIGNALS)
def test_an_answer_without_tokens_has_no_score_rather_than_zero(name: str) -> None:
    assert signal(name)([]) is None


@pytest.mark.parametrize("name", SIGNALS)
def test_less_sure_tokens_never_score_less(name: str) -> None:
    surer = [TokenTrace(token.token_id, token.logprob / 2, token.entropy / 2) for token in TOKENS]
    assert signal(name)(surer) <= signal(name)(TOKENS)


@pytest.mark.parametrize("name", ["", "entropy", "MEAN_ENTROPY", "min_margin"])
def test_an_unknown_signal_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no uncertainty signal '{name}'; there are mean_entropy, peak_entropy, "):
        signal(name)


def test_the_default_is_one_of_them_and_not_the_control() -> None:
    assert DEFAULT_SIGNAL in set(SIGNALS) - {"length"}
