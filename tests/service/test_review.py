"""What an operator is shown of how far a candidate moved, and of earlier repairs."""

import pytest

from service.cli.review import show
from store.records import Outcome
from tests.service.conftest import Desk
from tests.service.ledger_fakes import RESULTS, add_candidate, judge


def moved(desk: Desk) -> dict | None:
    return desk.operator.get("/operator/review").json()["moved"]


def test_how_far_is_usual_is_known_from_three_earlier_runs(desk: Desk) -> None:
    add_candidate(desk.daemon)
    assert moved(desk) is None
    for seed, nats in enumerate((1.0, 2.0, 1.2), start=2):
        add_candidate(desk.daemon, seed=seed, moved=nats)
        assert moved(desk) == {"nats": nats, "usual": None, "is_alarm": False}
    add_candidate(desk.daemon, seed=5, moved=1.5)
    assert moved(desk) == {"nats": 1.5, "usual": 1.2, "is_alarm": False}


def test_much_farther_than_usual_is_an_alarm(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, nats in enumerate((1.0, 1.0, 1.0, 1.4)):
        add_candidate(desk.daemon, seed=seed, moved=nats)
    show(desk.operator.get("/operator/review").json())
    told = capsys.readouterr().out
    assert "alarm: on what it was taught it moved 1.40 nats a token from the base, and 1.00 is usual" in told


def test_a_review_tells_how_many_earlier_repairs_are_undone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    candidate = add_candidate(desk.daemon, outcome=None)
    judge(desk.daemon, candidate, Outcome.FAIL, results={**RESULTS, "repairs": {"num_items": 12, "num_lost": 3}})
    show(desk.operator.get("/operator/review").json())
    assert "earlier repairs that the champion holds: 12, undone 3" in capsys.readouterr().out


def test_a_review_tells_how_often_each_model_leans_with_people(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    candidate = add_candidate(desk.daemon, outcome=None)
    right = {"candidate": 9, "champion": 4, "base": 0}
    preferred = {name: {"num_items": 12, "num_right": num_right} for name, num_right in right.items()}
    judge(desk.daemon, candidate, Outcome.PASS, results={**RESULTS, "preferred": preferred})
    show(desk.operator.get("/operator/review").json())
    shares = {word for word in capsys.readouterr().out.split() if word.endswith("/12")}
    assert shares == {"9/12", "4/12", "0/12"}
