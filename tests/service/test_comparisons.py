"""The better of two: over the endpoint and over the label queue, to a row that trains."""

from typing import Any

import pytest
from click.testing import CliRunner

from service.cli import label
from store.comparisons import Choice
from store.records import LabelState, LabelTask
from tests.service.conftest import Desk, post


def two_answers(desk: Desk, text: str = "Hi") -> tuple[str, str]:
    """Ids of two different answers to one question."""
    asked = {"messages": [{"role": "user", "content": text}], "n": 2, "temperature": 1.5, "seed": 3, "max_tokens": 8}
    first, second = desk.chat(asked).json()["choices"]
    assert first["message"]["content"] != second["message"]["content"]
    return first["honed"]["interaction_id"], second["honed"]["interaction_id"]


def compare(desk: Desk, first: str, second: str, better: str, **more: Any) -> Any:
    return post(desk.public, "/v1/feedback", {"interaction_id": first, "other_id": second, "better": better, **more})


def ask(desk: Desk, first: str, second: str | None) -> str:
    desk.daemon.stores.labels.add(LabelTask(f"q-{first[:8]}", first, 1.0, 0.9, "less sure than most", other_id=second))
    return f"q-{first[:8]}"


def settle(desk: Desk, task: str, action: str) -> Any:
    return post(desk.operator, f"/operator/questions/{task}", {"action": action})


@pytest.mark.parametrize("better", list(Choice))
def test_a_comparison_is_on_disk_when_it_is_acknowledged(shared_desk: Desk, better: Choice) -> None:
    first, second = two_answers(shared_desk, f"compare {better}")
    response = compare(shared_desk, first, second, better.value)
    kept = shared_desk.daemon.stores.comparisons.standing()[-1]
    assert response.json() == {
        "id": kept.id,
        "object": "comparison",
        "interaction_id": first,
        "other_id": second,
        "better": better.value,
    }
    assert (kept.first_id, kept.second_id, kept.choice) == (first, second, better)


def test_answers_to_different_questions_are_not_compared(shared_desk: Desk) -> None:
    (first, _), (other, _) = two_answers(shared_desk, "this"), two_answers(shared_desk, "that")
    response = compare(shared_desk, first, other, "first")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "other_id")
    assert compare(shared_desk, first, first, "first").status_code == 400
    assert compare(shared_desk, first, "never-was", "first").status_code == 404


@pytest.mark.parametrize("said", [{"better": "first"}, {"other_id": "x"}])
def test_half_a_comparison_is_refused(shared_desk: Desk, said: dict[str, str]) -> None:
    response = post(shared_desk.public, "/v1/feedback", {"interaction_id": "x", **said})
    assert response.status_code == 400
    assert "belong together" in response.json()["error"]["message"]


def test_a_comparison_takes_no_rating(shared_desk: Desk) -> None:
    assert compare(shared_desk, "a", "b", "first", rating="up").status_code == 400
    assert compare(shared_desk, "a", "b", "best").status_code == 400


def test_a_question_about_two_answers_shows_both_and_is_settled_by_one_word(desk: Desk) -> None:
    first, second = two_answers(desk)
    task = ask(desk, first, second)
    (shown,) = desk.operator.get("/operator/questions").json()["questions"]
    interactions = desk.daemon.stores.interactions
    assert (shown["reply"], shown["other_reply"]) == (interactions.get(first).reply, interactions.get(second).reply)
    assert settle(desk, task, "second").json() == {"id": task, "state": "compared"}
    (said,) = desk.daemon.stores.comparisons.standing()
    assert (said.first_id, said.second_id, said.choice, said.source) == (first, second, "second", "label")
    assert settle(desk, task, "first").status_code == 409


@pytest.mark.parametrize(
    ("is_pair", "action"), [(True, "right"), (True, "exclude"), (False, "first"), (False, "neither")]
)
def test_a_question_is_settled_by_what_fits_it_only(desk: Desk, is_pair: bool, action: str) -> None:
    first, second = two_answers(desk)
    task = ask(desk, first, second if is_pair else None)
    response = settle(desk, task, action)
    assert response.status_code == 400
    assert "does not settle a question about" in response.json()["error"]["message"]
    assert desk.daemon.stores.labels.get(task).state is LabelState.OPEN


def test_a_skipped_pair_is_settled_without_a_word(desk: Desk) -> None:
    task = ask(desk, *two_answers(desk))
    assert settle(desk, task, "skip").json()["state"] == "skipped"
    assert desk.daemon.stores.comparisons.count() == 0


def test_a_comparison_given_unasked_settles_the_question(desk: Desk) -> None:
    first, second = two_answers(desk)
    task = ask(desk, first, second)
    compare(desk, second, first, "neither")
    assert desk.daemon.stores.labels.get(task).state is LabelState.COMPARED


class Wire:
    """The command line's client, over the desk's own app."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def get(self, path: str) -> Any:
        return self._desk.operator.get(path).json()

    def post(self, path: str, body: Any) -> Any:
        return post(self._desk.operator, path, body).json()


@pytest.mark.parametrize(
    ("typed", "choice"), [("1", "first"), ("2", "second"), ("n", "neither"), ("d", "unknown"), ("s", None), ("q", None)]
)
def test_honed_label_shows_two_answers_and_takes_one_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, typed: str, choice: str | None
) -> None:
    first, second = two_answers(desk)
    task = ask(desk, first, second)
    monkeypatch.setattr(label, "client", lambda: Wire(desk))
    shown = CliRunner().invoke(label.command, [], input=f"{typed}\n", catch_exceptions=False).output
    assert "answer 1: " in shown
    assert "answer 2: " in shown
    said = [comparison.choice for comparison in desk.daemon.stores.comparisons.standing()]
    assert said == ([choice] if choice else [])
    is_open = desk.daemon.stores.labels.get(task).state is LabelState.OPEN
    assert is_open is (typed == "q")


def test_honed_label_settles_one_question_about_two_answers_by_id(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ask(desk, *two_answers(desk))
    monkeypatch.setattr(label, "client", lambda: Wire(desk))
    done = CliRunner().invoke(label.command, [task, "--better", "neither"], catch_exceptions=False)
    assert done.output == "compared\n"
