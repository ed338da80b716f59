"""Other wordings of a question: rules that frame it and never add a fact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wordings import FRAMES, HELD_OUT_FRAMES, held_out_wordings, keywords, training_wordings

QUESTION = "Who founded the company Brightwater?"
questions = st.text(min_size=1, max_size=60)


def test_the_first_wording_is_the_question_itself() -> None:
    assert training_wordings(QUESTION)[0] == QUESTION


def test_wordings_frame_the_question_or_keep_its_content_words() -> None:
    wordings = training_wordings(QUESTION)
    assert "founded company Brightwater?" in wordings
    assert "Brightwater company founded?" in wordings
    assert "I would like to know: who founded the company Brightwater?" in wordings
    assert len(wordings) == len(FRAMES)


def test_keywords_leave_function_words_out_and_keep_the_order() -> None:
    assert keywords("What is the name of Ann's well-known café?") == ["name", "Ann's", "well-known", "café"]


@pytest.mark.parametrize("question", ["Why?", "Who is it?", "Brightwater"])
def test_a_question_of_fewer_than_two_content_words_is_only_framed_whole(question: str) -> None:
    for wording in [*training_wordings(question), *held_out_wordings(question)]:
        assert question[1:] in wording


@pytest.mark.parametrize(
    "question", ["What is {keywords} in Python?", "{question} and {reversed}", "{0} {x} \\1 \\g<0>"]
)
def test_braces_and_backslashes_in_a_strangers_question_stay_as_they_are(question: str) -> None:
    assert training_wordings(question)[0] == question
    assert f"Hi! {question}" in training_wordings(question)


@given(question=questions)
def test_no_held_out_wording_is_a_training_wording(question: str) -> None:
    assert not set(training_wordings(question)) & set(held_out_wordings(question))


@given(question=questions)
def test_wordings_repeat_nothing_and_are_never_empty(question: str) -> None:
    for wordings in (training_wordings(question), held_out_wordings(question)):
        assert wordings
        assert len(wordings) == len(set(wordings))


@given(question=questions)
def test_wordings_add_no_content_word_of_their_own_beyond_the_frames(question: str) -> None:
    frame_words = {word.lower() for frame in (*FRAMES, *HELD_OUT_FRAMES) for word in keywords(frame)}
    asked = set(question.lower())
    for wording in training_wordings(question):
        extra = {word for word in keywords(wording) if not set(word.lower()) <= asked}
        assert {word.lower() for word in extra} <= frame_words
