"""What judgements of some answers say of others: by their traces, and by how near questions fared."""

import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from agent.certainty import MIN_JUDGED
from agent.detection import MIN_NEAR, Detector, Example, held_out_scores, learn
from store.records import TokenTrace


def example(draw: random.Random, *, by_trace: float = 1.0, by_topic: float = 0.0, vectors: bool = True) -> Example:
    """Wrong with a probability that its entropy tells, or its topic (one of eight directions), as weighed."""
    entropy, topic = draw.random(), draw.randrange(8)
    probability = by_trace * entropy + by_topic * (topic % 2) + (1 - by_trace - by_topic) * 0.5
    vector = np.eye(8, dtype=np.float32)[topic] + 0.02 * np.array([draw.gauss(0, 1) for _ in range(8)], np.float32)
    tokens = [TokenTrace(1, -entropy, entropy)] * draw.randrange(1, 20)
    return Example(tokens, vector / np.linalg.norm(vector) if vectors else None, draw.random() < probability)


def examples(count: int, seed: int = 0, **of: float) -> list[Example]:
    draw = random.Random(seed)
    return [example(draw, **of) for _ in range(count)]


def auroc(of: list[Example], scores: np.ndarray) -> float:
    return float(roc_auc_score([one.is_wrong for one in of], scores))


def test_an_unsure_answer_scores_higher_than_a_sure_one() -> None:
    fresh = examples(500, 1)
    assert auroc(fresh, Detector(examples(300)).scores(fresh)) > 0.75


def test_what_the_trace_does_not_tell_near_questions_tell() -> None:
    told, fresh = examples(300, by_trace=0.0, by_topic=1.0), examples(300, 1, by_trace=0.0, by_topic=1.0)
    assert auroc(fresh, Detector(told).scores(fresh)) > 0.95
    blind = [Example(one.tokens, None, one.is_wrong) for one in told]
    assert auroc(fresh, Detector(blind).scores(fresh)) < 0.6


def test_a_vector_of_another_embedder_counts_as_none() -> None:
    detector = Detector(examples(300))
    tokens = [TokenTrace(1, -0.5, 0.5)]
    assert detector.score(tokens, np.ones(3, dtype=np.float32)) == detector.score(tokens, None)


def test_a_question_without_a_vector_is_scored_by_its_trace() -> None:
    detector = Detector(examples(300))
    sure, unsure = ([TokenTrace(1, -entropy, entropy)] * 5 for entropy in (0.05, 0.95))
    assert detector.score(sure, None) < detector.score(unsure, None)


@pytest.mark.parametrize("count", [MIN_JUDGED, MIN_NEAR, MIN_NEAR + 1])
def test_held_out_scores_know_nothing_of_the_answer_they_are_of(count: int) -> None:
    noise = [examples(count, seed, by_trace=0.0) for seed in range(30)]
    assert np.mean([auroc(some, held_out_scores(some)) for some in noise]) == pytest.approx(0.5, abs=0.08)


def test_what_is_learnt_gives_probabilities_that_hold_for_others() -> None:
    known = learn(examples(800))
    assert known is not None
    fresh = examples(800, 1)
    said = np.array([known.probability_wrong(one.tokens, one.vector) for one in fresh])
    assert said.mean() == pytest.approx(np.mean([one.is_wrong for one in fresh]), abs=0.05)
    assert known.report.auroc == pytest.approx(auroc(fresh, said), abs=0.06)
    assert known.probability_wrong([], fresh[0].vector) is None


def test_the_same_judgements_teach_the_same() -> None:
    one, other = learn(examples(100)), learn(examples(100))
    asked = examples(1, 5)[0]
    assert one.probability_wrong(asked.tokens, asked.vector) == other.probability_wrong(asked.tokens, asked.vector)


def alike(is_wrong: list[bool]) -> list[Example]:
    return [
        Example(one.tokens, one.vector, wrong) for one, wrong in zip(examples(len(is_wrong)), is_wrong, strict=True)
    ]


@pytest.mark.parametrize(
    "is_wrong", [[], [True, False] * 9, [True] * 40, [False] * 40, [True] + [False] * 40, [False] + [True] * 40]
)
def test_with_too_few_judgements_or_of_one_kind_nothing_is_learnt(is_wrong: list[bool]) -> None:
    assert learn(alike(is_wrong)) is None


def test_two_of_a_kind_are_enough_wherever_they_stand() -> None:
    for places in ((0, 1), (0, 5), (38, 39)):
        assert learn(alike([number in places for number in range(40)])) is not None


def test_a_detector_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="0 of 30 answers are wrong; give some of both"):
        Detector(alike([False] * 30))
