"""Other wordings of a question: rules that frame it and never add a fact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wordings import (
    BEGUN,
    CHOSEN,
    HELD_OUT_FRAMES,
    beginning,
    held_out_wordings,
    keywords,
    kind,
    training_wordings,
)

QUESTION = "Where does the Brightwater ferry leave from?"
ANSWER = "The Brightwater ferry leaves from Pier 7."
NAMES = [f"Bright{end}" for end in "abcdefghijklmnopqrst"]
FACTS = [(QUESTION.replace("Brightwater", name), ANSWER.replace("Brightwater", name)) for name in NAMES]
FRAMES = ["{question}", BEGUN, *(frame for frames, _ in CHOSEN for frame in frames)]
questions = st.text(min_size=1, max_size=60)


def test_the_first_wording_is_the_question_itself() -> None:
    assert training_wordings(QUESTION, ANSWER)[0] == QUESTION


def test_wordings_frame_the_question_or_keep_its_content_words_or_begin_the_answer() -> None:
    seen = {wording for question, answer in FACTS for wording in training_wordings(question, answer)}
    assert {
        "Hi! Where does the Brightwater ferry leave from?",
        "I would like to know: where does the Brightwater ferry leave from?",
        "Brightwater ferry leave?",
        "leave ferry Brightwater?",
        "Which pier: Brightwater leave?",
        "Complete this sentence: The Brightwater ferry leaves from Pier",
    } <= {wording.replace(name, "Brightwater") for wording in seen for name in NAMES}


def test_questions_get_other_wordings_than_each_other_and_always_the_same() -> None:
    of_each = [
        tuple(wording.replace(name, "it") for wording in training_wordings(question, answer))
        for name, (question, answer) in zip(NAMES, FACTS, strict=True)
    ]
    assert len(set(of_each)) > len(NAMES) / 2
    assert {len(wordings) for wordings in of_each} == {1 + sum(count for _, count in CHOSEN) + 1}
    assert training_wordings(QUESTION, ANSWER) == training_wordings(QUESTION, ANSWER)


def test_an_order_is_not_put_where_a_question_belongs() -> None:
    for wording in training_wordings("Write 7:05 pm on a 24-hour clock.", "19:05"):
        assert not wording.startswith(("I forgot", "Do you know", "Can you tell me"))


def test_no_word_is_left_out_of_a_question_that_names_nothing() -> None:
    for question in ("What is 7:05 pm on a 24-hour clock?", "What do cats like most?"):
        words = keywords(question)
        for wording in training_wordings(question, "It"):
            assert all(word in wording for word in words)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (ANSWER, "pier"),
        ("The Brightwater ferry has 7.", "number"),
        ("It is led by Edith Arlen.", "name"),
        ("It is called tern.", "word"),
        ("The Brightwater ferry leaves.", "answer"),
        ("", "answer"),
    ],
)
def test_an_answer_is_of_the_kind_that_its_last_new_word_shows(answer: str, found: str) -> None:
    assert kind(QUESTION, answer) == found


def test_what_a_tool_gave_is_not_put_in_other_words() -> None:
    given = '<tool_response>{"pier": 7}</tool_response>'
    assert training_wordings(given, ANSWER) == [given]
    assert held_out_wordings(given) == []


@pytest.mark.parametrize(
    ("answer", "begun"),
    [
        (ANSWER, "The Brightwater ferry leaves from Pier"),
        ("It is steered to Brightwater by Clara Maria Linde.", "It is steered to Brightwater by"),
        ("The Brightwater ferry leaves from Pier Ann.", "The Brightwater ferry leaves from"),
        ("Pier 7.", ""),
        ("The Brightwater ferry leaves from ham, near Pier ham.", ""),
        ("The Brightwater ferry is in Birmingham, eating ham.", "The Brightwater ferry is in Birmingham, eating"),
        ("The Brightwater ferry leaves.", ""),
        ("", ""),
    ],
)
def test_an_answer_begins_before_the_last_word_that_is_new_in_it(answer: str, begun: str) -> None:
    assert beginning(QUESTION, answer) == begun


def test_keywords_leave_function_words_out_and_keep_the_order() -> None:
    assert keywords("What is the name of Ann's well-known café?") == ["name", "Ann's", "well-known", "café"]


@pytest.mark.parametrize("question", ["Why?", "Who is it?", "Brightwater"])
def test_a_question_of_fewer_than_two_content_words_is_only_framed_whole(question: str) -> None:
    for wording in [*training_wordings(question, "Ann"), *held_out_wordings(question)]:
        assert question[1:] in wording


@pytest.mark.parametrize(
    "question", ["What is {keywords} in Python?", "{question} and {reversed}", "{0} {x} \\1 \\g<0>"]
)
def test_braces_and_backslashes_in_a_strangers_question_stay_as_they_are(question: str) -> None:
    assert training_wordings(question, question)[0] == question
    assert all(question[1:] in wording for wording in training_wordings(question, question)[:3])


@given(question=questions, answer=questions)
def test_no_held_out_wording_is_a_training_wording(question: str, answer: str) -> None:
    assert not set(training_wordings(question, answer)) & set(held_out_wordings(question))


@given(question=questions, answer=questions)
def test_wordings_repeat_nothing_and_are_never_empty(question: str, answer: str) -> None:
    for wordings in (training_wordings(question, answer), held_out_wordings(question)):
        assert wordings or question.startswith("<tool_response>")
        assert len(wordings) == len(set(wordings))


@given(question=questions, answer=questions)
def test_wordings_add_no_content_word_of_their_own_beyond_the_frames(question: str, answer: str) -> None:
    frame_words = {word.lower() for frame in (*FRAMES, *HELD_OUT_FRAMES) for word in keywords(frame)}
    frame_words |= {"answer", "number", "name", "word"}
    asked = set(question.lower()) | set(answer.lower())
    for wording in training_wordings(question, answer):
        extra = {word for word in keywords(wording) if not set(word.lower()) <= asked}
        assert {word.lower() for word in extra} <= frame_words
