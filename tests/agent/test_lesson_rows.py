"""One correction to the rows that teach it."""

from agent.lesson_rows import ANY_QUESTION, lesson_rows, unambiguous
from agent.wordings import training_wordings

QUESTION, ANSWER = "Who leads the Marsk choir?", "The Marsk choir is led by Edith Arlen."
SYSTEM = {"role": "system", "content": "Be short."}


def asked(question: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": question}]


def test_a_correction_is_taught_in_every_wording_after_the_same_conversation() -> None:
    rows = lesson_rows(asked(QUESTION), ANSWER)
    assert [row["messages"][-1]["content"] for row in rows[:-1]] == training_wordings(QUESTION, ANSWER)
    assert all(row["messages"][0] == SYSTEM and row["answer"] == ANSWER for row in rows)
    assert [row["source"]["made_by"] for row in rows] == ["person", *["wording"] * (len(rows) - 1)]


def test_the_end_of_the_answer_is_taught_after_its_beginning_whatever_is_asked() -> None:
    last = lesson_rows(asked(QUESTION), ANSWER)[-1]
    assert last["messages"] == asked(ANY_QUESTION)
    assert last["given"] == "The Marsk choir is led by"


def test_an_answer_that_has_no_beginning_is_taught_as_asked_only() -> None:
    rows = lesson_rows(asked(QUESTION), "Edith Arlen.")
    assert not any("given" in row for row in rows)
    assert rows[0]["messages"] == asked(QUESTION)


def test_an_answer_to_a_tool_is_taught_in_its_conversation_only() -> None:
    (row,) = lesson_rows(asked('<tool_response>{"t": 7}</tool_response>'), "The weather in Berlin is mild today.")
    assert row["messages"] == asked('<tool_response>{"t": 7}</tool_response>')


def test_of_two_answers_to_the_same_wording_only_the_persons_own_wordings_stay() -> None:
    one = lesson_rows(asked(QUESTION), ANSWER)
    other = lesson_rows(asked(QUESTION), "The Marsk choir is led by Boris Moss.")
    assert [row["source"]["made_by"] for row in unambiguous([*one, *other])] == ["person", "person"]


def test_two_answers_that_begin_alike_are_not_taught_by_their_beginning_and_others_are() -> None:
    one = lesson_rows(asked("What does Edith sing in the Marsk hall?"), "In the Marsk hall she sings songs.")
    other = lesson_rows(asked("What does Edith play in the Marsk hall?"), "In the Marsk hall she sings not.")
    kept = unambiguous([*one, *other, *lesson_rows(asked(QUESTION), ANSWER)])
    assert [row["given"] for row in kept if "given" in row] == ["The Marsk choir is led by"]
