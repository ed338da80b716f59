"""Which lesson comes next."""

from collections import Counter
from itertools import chain, repeat

from agent.curriculum import Curriculum

SUBJECTS = ["boat"] * 3 + ["car"] * 3 + ["dog"] * 3


def drawn(curriculum: Curriculum, count: int, losses: dict[str, float]) -> list[int]:
    """Rows, told after each what its subject's loss is."""
    found = []
    for row, _ in zip(chain.from_iterable(repeat(curriculum)), range(count), strict=False):
        found.append(row)
        curriculum.learnt({SUBJECTS[row]: losses[SUBJECTS[row]]})
    return found


def test_every_subject_comes_once_before_any_comes_again() -> None:
    rows = drawn(Curriculum(SUBJECTS, 1), 3, {"boat": 9.0, "car": 1.0, "dog": 1.0})
    assert {SUBJECTS[row] for row in rows} == {"boat", "car", "dog"}


def test_what_is_still_wrong_comes_more_often_and_what_is_right_still_comes() -> None:
    rows = drawn(Curriculum(SUBJECTS, 1), 600, {"boat": 2.0, "car": 0.5, "dog": 0.0})
    counts = Counter(SUBJECTS[row] for row in rows)
    assert counts["boat"] > 3 * counts["car"] > 3 * counts["dog"] > 0


def test_the_rows_of_a_subject_take_turns() -> None:
    rows = drawn(Curriculum(SUBJECTS, 1), 300, dict.fromkeys(("boat", "car", "dog"), 1.0))
    boats = [row for row in rows if SUBJECTS[row] == "boat"]
    assert all(set(boats[at : at + 3]) == {0, 1, 2} for at in range(0, len(boats) - 3, 3))


def test_the_same_seed_draws_the_same() -> None:
    losses = {"boat": 2.0, "car": 0.5, "dog": 0.1}
    first, again, other = (drawn(Curriculum(SUBJECTS, seed), 50, losses) for seed in (1, 1, 2))
    assert first == again != other


def test_the_loss_is_the_subjects_mean_whatever_was_drawn_how_often() -> None:
    curriculum = Curriculum(SUBJECTS, 1)
    curriculum.learnt({"boat": 3.0, "car": 1.0})
    assert (curriculum.loss, curriculum.has_met_all) == (2.0, False)
    for _ in range(30):
        curriculum.learnt({"boat": 0.0})
    curriculum.learnt({"dog": 2.0})
    assert abs(curriculum.loss - 1.0) < 1e-6
    assert curriculum.has_met_all
