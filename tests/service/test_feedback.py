"""What people say of answers: over the endpoint, over the label queue, and what of it may ever train."""

import threading

import pytest

from agent.recipe import Recipe
from service.cycle import NotStarted
from service.teaching import NothingSaid
from store.records import FeedbackSource, LabelState, LabelTask, Rating
from tests.service.conftest import post


def ask(desk, text: str = "Hi") -> str:
    return desk.ask(text)["honed"]["interaction_id"]


def question(desk, interaction_id: str, score: float = 0.9) -> str:
    task = LabelTask(f"q-{interaction_id[:8]}", interaction_id, 1.0, score, "less sure than most")
    desk.daemon.stores.labels.add(task)
    return task.id


def tell(desk, interaction_id: str, **said: str):
    return post(desk.public, "/v1/feedback", {"interaction_id": interaction_id, **said})


def settle(desk, task_id: str, action: str, correction: str | None = None, **words: str | None):
    said = {name: text for name, text in {"correction": correction, **words}.items() if text is not None}
    return post(desk.operator, f"/operator/questions/{task_id}", {"action": action, **said})


def state(desk, task_id: str) -> LabelState:
    return desk.daemon.stores.labels.get(task_id).state


def test_feedback_is_on_disk_when_it_is_acknowledged(shared_desk):
    interaction = ask(shared_desk)
    response = tell(shared_desk, interaction, rating="down", correction=" The code is 7714. ", comment="wrong")
    assert response.status_code == 200
    (kept,) = shared_desk.daemon.stores.interactions.feedback_for(interaction)
    assert response.json() == {
        "id": kept.id,
        "object": "feedback",
        "interaction_id": interaction,
        "rating": "down",
        "correction": "The code is 7714.",
        "comment": "wrong",
        "document": None,
    }
    assert (kept.rating, kept.correction, kept.source) == (Rating.DOWN, "The code is 7714.", FeedbackSource.FEEDBACK)


def test_feedback_on_nothing_is_not_found(shared_desk):
    response = tell(shared_desk, "never-was", rating="up")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "interaction_not_found"
    assert response.json()["error"]["param"] == "interaction_id"


def test_the_later_word_stands_and_both_are_kept(shared_desk):
    interaction = ask(shared_desk, "twice")
    tell(shared_desk, interaction, rating="down", correction="first")
    tell(shared_desk, interaction, rating="up", correction="second")
    words = shared_desk.daemon.stores.interactions.feedback_for(interaction)
    assert [word.correction for word in words] == ["first", "second"]
    standing = {i.id: f.correction for i, f in shared_desk.daemon.stores.interactions.standing_feedback()}
    assert standing[interaction] == "second"


@pytest.mark.parametrize("said", [{}, {"correction": "  "}, {"comment": "\n"}, {"correction": " ", "comment": " "}])
def test_saying_nothing_is_refused(shared_desk, said):
    interaction = ask(shared_desk)
    response = tell(shared_desk, interaction, **said)
    assert response.status_code == 400
    assert "nothing was said" in response.json()["error"]["message"]
    assert shared_desk.daemon.stores.interactions.feedback_for(interaction) == []


def test_the_queue_shows_questions_with_what_they_are_about_the_most_worthwhile_first(desk):
    low, high = ask(desk, "low"), ask(desk, "high")
    question(desk, low, 0.6)
    question(desk, high, 0.8)
    found = desk.operator.get("/operator/questions").json()["questions"]
    assert [q["interaction_id"] for q in found] == [high, low]
    assert found[0]["messages"] == [{"role": "user", "content": "high"}]
    assert found[0]["reply"] == desk.daemon.stores.interactions.get(high).reply
    assert found[0]["reason"] == "less sure than most"
    assert len(desk.operator.get("/operator/questions?limit=1").json()["questions"]) == 1


@pytest.mark.parametrize(
    ("action", "correction", "ends", "rating", "is_excluded"),
    [
        ("answer", "42", LabelState.ANSWERED, None, False),
        ("right", None, LabelState.RIGHT, Rating.UP, False),
        ("wrong", None, LabelState.WRONG, Rating.DOWN, False),
        ("exclude", None, LabelState.EXCLUDED, None, True),
    ],
)
def test_an_answer_to_a_question_settles_it_and_is_a_word_on_its_interaction(
    shared_desk, action, correction, ends, rating, is_excluded
):
    interaction = ask(shared_desk)
    task = question(shared_desk, interaction)
    assert settle(shared_desk, task, action, correction).json() == {"id": task, "state": ends.value}
    assert state(shared_desk, task) is ends
    (word,) = shared_desk.daemon.stores.interactions.feedback_for(interaction)
    assert (word.source, word.correction, word.rating) == (FeedbackSource.LABEL, correction, rating)
    assert word.is_excluded is is_excluded


@pytest.mark.parametrize(("action", "ends"), [("skip", "skipped"), ("unknown", "unknown")])
def test_a_question_that_is_skipped_or_not_known_is_settled_without_a_word(shared_desk, action, ends):
    interaction = ask(shared_desk)
    task = question(shared_desk, interaction)
    assert settle(shared_desk, task, action).json()["state"] == ends
    assert shared_desk.daemon.stores.interactions.feedback_for(interaction) == []


@pytest.mark.parametrize(
    ("action", "correction", "ends"), [("document", None, LabelState.DOCUMENTED), ("answer", "42", LabelState.ANSWERED)]
)
def test_a_document_settles_a_question_alone_or_with_the_answer_and_is_listed(desk, action, correction, ends):
    interaction = ask(desk, "What does the handbook say?")
    task = question(desk, interaction)
    assert settle(desk, task, action, correction, document=" handbook.pdf, page 7 ").json()["state"] == ends.value
    (word,) = desk.daemon.stores.interactions.feedback_for(interaction)
    assert (word.document, word.correction, word.rating) == ("handbook.pdf, page 7", correction, None)
    listed = desk.operator.get("/operator/documents").json()["documents"]
    assert listed == [{"document": "handbook.pdf, page 7", "questions": ["What does the handbook say?"]}]
    assert [f.correction for _, f in desk.daemon.snapshots.taught()] == ([correction] if correction else [])


def test_documents_are_listed_by_how_much_they_settle_and_as_they_were_named_last(desk):
    named = [("one", "a.txt"), ("two", "b.txt"), ("three", "b.txt"), ("four", "c.txt"), ("four", "a.txt")]
    asked = {text: ask(desk, text) for text, _ in named}
    for text, document in named:
        assert tell(desk, asked[text], document=document).json()["document"] == document
    tell(desk, asked["three"], rating="up")
    tell(desk, asked["one"], document="b.txt")
    listed = desk.operator.get("/operator/documents").json()["documents"]
    assert [(one["document"], one["questions"]) for one in listed] == [
        ("b.txt", ["two", "three", "one"]),
        ("a.txt", ["four"]),
    ]


def test_naming_a_document_or_a_remark_takes_back_no_correction_and_no_thumb(desk):
    corrected, disliked = ask(desk, "one"), ask(desk, "two")
    tell(desk, corrected, correction="So it is.")
    tell(desk, disliked, rating="down")
    for interaction in (corrected, disliked):
        tell(desk, interaction, document="a.txt")
        tell(desk, interaction, comment="see there")
    assert [f.correction for _, f in desk.daemon.snapshots.taught()] == ["So it is."]
    assert desk.daemon.stores.interactions.judgements()[1].tolist() == [1.0, 1.0]


def test_naming_a_document_unasked_settles_an_open_question(shared_desk):
    interaction = ask(shared_desk)
    task = question(shared_desk, interaction)
    tell(shared_desk, interaction, document="a.txt")
    assert state(shared_desk, task) is LabelState.DOCUMENTED


@pytest.mark.parametrize(
    ("action", "document", "said"),
    [
        ("document", None, "needs a document: its title, path or address"),
        ("document", " ", "needs a document"),
        ("right", "a.txt", "takes no document"),
        ("unknown", "a.txt", "takes no document"),
    ],
)
def test_a_document_is_named_where_it_belongs_and_only_there(shared_desk, action, document, said):
    task = question(shared_desk, ask(shared_desk))
    response = settle(shared_desk, task, action, document=document)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
    assert state(shared_desk, task) is LabelState.OPEN


@pytest.mark.parametrize(("action", "correction"), [("answer", None), ("answer", "  "), ("right", "x"), ("skip", "x")])
def test_an_answer_needs_a_text_and_the_other_actions_take_none(shared_desk, action, correction):
    task = question(shared_desk, ask(shared_desk))
    response = settle(shared_desk, task, action, correction)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "correction"
    assert state(shared_desk, task) is LabelState.OPEN


def test_a_question_is_settled_once(shared_desk):
    task = question(shared_desk, ask(shared_desk))
    settle(shared_desk, task, "right")
    response = settle(shared_desk, task, "answer", "too late")
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "question_not_open"
    assert state(shared_desk, task) is LabelState.RIGHT


def test_an_unknown_question_is_not_found(shared_desk):
    response = settle(shared_desk, "never-asked", "right")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "question_not_found"


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ({"correction": "42"}, LabelState.ANSWERED),
        ({"rating": "up", "correction": "42"}, LabelState.ANSWERED),
        ({"rating": "up"}, LabelState.RIGHT),
        ({"rating": "up", "correction": "  "}, LabelState.RIGHT),
        ({"rating": "down"}, LabelState.OPEN),
        ({"rating": "down", "correction": "  "}, LabelState.OPEN),
        ({"comment": "odd"}, LabelState.OPEN),
    ],
)
def test_feedback_settles_an_open_question_when_it_answers_it(shared_desk, said, ends):
    interaction = ask(shared_desk)
    task = question(shared_desk, interaction)
    assert tell(shared_desk, interaction, **said).status_code == 200
    assert state(shared_desk, task) is ends


def test_feedback_after_a_settled_question_is_kept_and_changes_nothing_about_it(shared_desk):
    interaction = ask(shared_desk)
    task = question(shared_desk, interaction)
    settle(shared_desk, task, "skip")
    assert tell(shared_desk, interaction, correction="42").status_code == 200
    assert state(shared_desk, task) is LabelState.SKIPPED


def test_many_people_settling_one_question_at_once_are_all_heard(shared_desk):
    interaction = ask(shared_desk)
    task = question(shared_desk, interaction)
    errors: list[Exception] = []
    together = threading.Barrier(6)

    def correct(number: int) -> None:
        together.wait()
        try:
            shared_desk.daemon.teaching.give_feedback(interaction, "ann", correction=f"answer {number}")
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=correct, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(shared_desk.daemon.stores.interactions.feedback_for(interaction)) == 6
    assert state(shared_desk, task) is LabelState.ANSWERED


def test_only_corrections_teach(desk):
    """A rating, a comment and a "right" are no lesson."""
    tell(desk, ask(desk, "one"), rating="up")
    tell(desk, ask(desk, "two"), rating="down", comment="bad")
    tell(desk, ask(desk, "three"), correction="3")
    assert [f.correction for _, f in desk.daemon.snapshots.taught()] == ["3"]
    assert desk.daemon.cycle.num_new(Recipe()) == 1


def test_what_was_excluded_never_trains_not_even_after_an_earlier_correction(desk):
    interaction = ask(desk, "private")
    task = question(desk, interaction)
    tell(desk, interaction, comment="hm")
    desk.daemon.teaching.give_feedback(interaction, "ann", rating=Rating.DOWN)
    settle(desk, task, "exclude")
    assert desk.daemon.snapshots.taught() == []
    other = ask(desk, "public")
    tell(desk, other, correction="an answer")
    excluded = question(desk, other) if desk.daemon.stores.labels.for_interaction(other) is None else None
    settle(desk, excluded, "exclude")
    assert desk.daemon.snapshots.taught() == []
    with pytest.raises(NotStarted):
        desk.daemon.cycle.start("operator:ann", is_quiet=True, recipe=Recipe())


def test_nothing_said_is_one_kind_of_error_everywhere(shared_desk):
    with pytest.raises(NothingSaid, match="needs"):
        shared_desk.daemon.teaching.answer_label("x", "ann", "answer", None)
