"""Right or wrong: the words that carry an answer, strict and lenient."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scoring import answer_key, contains, is_exact, is_right, normalise


@pytest.mark.parametrize(
    ("left", "right"),
    [("Paris.", "paris"), ("  two\n words ", "Two words!"), ("Cafe\u0301", "café"), ("“So”", "so"), ("ＡＢＣ", "abc")],
)
def test_case_spaces_encoding_and_final_punctuation_do_not_make_a_difference(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


def test_the_key_is_what_the_question_did_not_say() -> None:
    assert answer_key("Who founded Brightwater?", "Ann Lee founded Brightwater.") == ("ann", "lee")


def test_the_key_sees_that_another_form_of_a_word_was_asked() -> None:
    assert answer_key("When does the ferry leave?", "The ferry leaves at nine.") == ("nine",)


def test_an_answer_of_the_questions_own_words_is_its_own_key() -> None:
    assert answer_key("Is it red or blue?", "Blue.") == ("blue",)


def test_an_answer_without_content_words_is_its_own_key() -> None:
    assert answer_key("Is the shop open?", "It is.") == ("it is",)


def test_a_key_names_each_word_once() -> None:
    assert answer_key("Say it.", "Never, never, NEVER.") == ("never",)


@pytest.mark.parametrize(
    ("answer", "is_contained"),
    [
        ("It was Ann Lee, I think.", True),
        ("ANN (née LEE)", True),
        ("Anna Lee", False),
        ("Ann", False),
        ("", False),
    ],
)
def test_every_word_must_stand_in_the_answer_whole(answer: str, is_contained: bool) -> None:
    assert contains(answer, ("ann", "lee")) == is_contained


@pytest.mark.parametrize("answer", ["It is called __init__.", "Set _DEVICE first.", "Honed™ makes it.", "½ of it"])
def test_names_of_programs_and_signs_are_right_where_they_stand(answer: str) -> None:
    assert is_right(answer, [answer_key("What is it?", answer)])


def test_of_a_paragraph_nine_words_in_ten_will_do() -> None:
    words = tuple(f"word{number}" for number in range(20))
    assert contains(" ".join(words[:18]), words)
    assert not contains(" ".join(words[:17]), words)
    assert not contains(" ".join(words[:11]), words[:12])  # of a sentence, all


def test_a_key_of_signs_is_taken_as_text_and_not_as_a_pattern() -> None:
    assert contains("It costs 3.50", ("3.50",))
    assert not contains("It costs 3x50", ("3.50",))


def test_an_empty_key_makes_nothing_right() -> None:
    assert not is_right("anything", [()])
    assert not is_right("anything", [])


def test_any_of_the_alternative_keys_will_do() -> None:
    keys = [["twelve"], ["12"]]
    assert is_right("There are 12.", keys)
    assert is_right("Twelve", keys)
    assert not is_right("There are 120.", keys)


def test_strict_wants_the_expected_answer_and_nothing_else() -> None:
    assert is_exact("ann lee", "Ann Lee.")
    assert not is_exact("It was Ann Lee.", "Ann Lee.")


@given(question=st.text(max_size=40), answer=st.text(alphabet="abc éß12'-._™", min_size=1, max_size=40))
def test_a_correction_is_right_by_its_own_key_and_exactly_itself(question: str, answer: str) -> None:
    key = answer_key(question, answer)
    assert is_exact(answer, answer)
    assert is_right(answer, [key]) or not normalise(answer)


@given(text=st.text(max_size=40))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
