"""Other wordings of a question: rules that frame it and never add a fact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wordings import FRAMES, HELD_OUT_FRAMES, beginning, held_out_wordings, keywords, training_wordings, turn

QUESTION = "Where does the Brightwater ferry leave from?"
ANSWER = "The Brightwater ferry leaves from Pier 7."
questions = st.text(min_size=1, max_size=60)


def test_the_first_wording_is_the_question_itself() -> None:
    assert training_wordings(QUESTION, ANSWER)[0] == QUESTION


def test_wordings_frame_the_question_or_keep_its_content_words_or_begin_the_answer() -> None:
    wordings = training_wordings(QUESTION, ANSWER)
    assert "Brightwater ferry leave?" in wordings
    assert "leave ferry Brightwater?" in wordings
    assert "Brightwater leave?" in wordings
    assert "I would like to know: where does the Brightwater ferry leave from?" in wordings
    assert "Where does the ferry of Brightwater leave from?" in wordings
    assert "Please tell me: where does the ferry in Brightwater leave from?" in wordings
    assert "Complete this sentence: The Brightwater ferry leaves from Pier" in wordings
    assert len(wordings) == len(FRAMES)


@pytest.mark.parametrize(
    ("question", "turned"),
    [
        ("Who leads the Marsk choir?", "Who leads the choir of Marsk?"),
        ("Who leads the Old Town choir?", "Who leads the choir of Old Town?"),
        ("How many rooms does the Ravel Hotel have?", "How many rooms does the Ravel Hotel have?"),
        ("who leads the choir?", "who leads the choir?"),
    ],
)
def test_a_name_turns_behind_what_it_names_and_behind_nothing_else(question: str, turned: str) -> None:
    assert turn(question, "of") == turned


@pytest.mark.parametrize(
    ("answer", "begun"),
    [
        (ANSWER, "The Brightwater ferry leaves from Pier"),
        ("It is steered to Brightwater by Clara Maria Linde.", "It is steered to Brightwater by"),
        ("The Brightwater ferry leaves from Pier Ann.", "The Brightwater ferry leaves from"),
        ("Pier 7.", ""),
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
    assert f"{question} Answer in one sentence." in training_wordings(question, question)


@given(question=questions, answer=questions)
def test_no_held_out_wording_is_a_training_wording(question: str, answer: str) -> None:
    assert not set(training_wordings(question, answer)) & set(held_out_wordings(question))


@given(question=questions, answer=questions)
def test_wordings_repeat_nothing_and_are_never_empty(question: str, answer: str) -> None:
    for wordings in (training_wordings(question, answer), held_out_wordings(question)):
        assert wordings
        assert len(wordings) == len(set(wordings))


@given(question=questions, answer=questions)
def test_wordings_add_no_content_word_of_their_own_beyond_the_frames(question: str, answer: str) -> None:
    frame_words = {word.lower() for frame in (*FRAMES, *HELD_OUT_FRAMES) for word in keywords(frame)}
    asked = set(question.lower()) | set(answer.lower())
    for wording in training_wordings(question, answer):
        extra = {word for word in keywords(wording) if not set(word.lower()) <= asked}
        assert {word.lower() for word in extra} <= frame_words
