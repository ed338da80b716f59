"""From people's words to what is worth learning: what each screen drops, with which reason, and what it leaves."""

from collections.abc import Sequence
from typing import Any

import pytest

from agent import suites
from agent.curation.language import MIN_ROWS, language_of
from agent.curation.lesson import Lesson
from agent.curation.pipeline import Curated, curate, screens
from agent.curation.texts import too_long
from agent.tokenizer import Tokenizer
from service.demo import FACTS
from store.records import Feedback, FeedbackSource, FinishReason, Interaction

SCREENS = screens({"retention": [{"question": "What is the capital of France?"}]})


def lesson(name: str, question: str, answer: str, *, by: str = "ann", at: float = 1.0, before: Any = ()) -> Lesson:
    messages = (*before, {"role": "user", "content": question})
    interaction = Interaction(f"i-{name}", name, 1.0, by, "base", messages, "No.", FinishReason.STOP, (), 5, 0.1, 1.0)
    return Lesson(interaction, Feedback(name, f"i-{name}", at, by, FeedbackSource.FEEDBACK, correction=answer))


def screened(*lessons: Lesson) -> Curated:
    return curate(lessons, SCREENS)


def rules(*lessons: Lesson) -> dict[str, str]:
    """Which lesson was dropped by which rule; every lesson is on one side."""
    found = screened(*lessons)
    assert {one.id for one in found.kept} | {drop.lesson_id for drop in found.dropped} == {one.id for one in lessons}
    assert len(found.kept) + len(found.dropped) == len(lessons)
    return {drop.lesson_id: drop.rule for drop in found.dropped}


# ── repeats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_correction_of_a_question_stands_and_the_other_is_dropped_by_name() -> None:
    old = lesson("old", "Who owns the red boat?", "Ben.", at=1.0)
    new = lesson("new", "who owns  the RED boat", "Marta.", at=2.0)
    for order in ([old, new], [new, old]):
        found = screened(*order)
        assert [one.id for one in found.kept] == ["new"]
        assert (found.dropped[0].rule, found.dropped[0].reason) == ("superseded", "a later correction, new, stands")


def test_who_returns_to_what_they_said_first_is_taken_at_their_last_word() -> None:
    said = [
        lesson(str(at), "Who owns the red boat?", answer, at=at) for at, answer in enumerate(("Ben.", "Eva.", "Ben."))
    ]
    assert rules(*said) == {"0": "duplicate", "1": "superseded"}


def test_the_same_answer_to_the_same_question_is_learnt_once_whoever_gave_it() -> None:
    first, second = (
        lesson("a", "Who owns the red boat?", "Ben."),
        lesson("b", "Who owns the red boat?", "ben", by="bo", at=2),
    )
    assert rules(first, second) == {"a": "duplicate"}


def test_nearly_the_same_words_are_learnt_once() -> None:
    one = lesson("a", "Who owns the big red boat?", "Ben owns it.")
    other = lesson("b", "Can you tell me who owns the big red boats, please?", "Ben.", at=2)
    assert rules(one, other) == {"a": "near_duplicate"}


def test_the_same_question_in_another_context_is_another_lesson() -> None:
    before = ({"role": "user", "content": "Of the harbour."}, {"role": "assistant", "content": "Gladly."})
    alone = lesson("alone", "Who owns the big red boat?", "Marta.")
    inside = lesson("inside", "Who owns the big red boat?", "The harbour master.", before=before)
    assert rules(alone, inside) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of Chad?", "What is the capital of Cuba?"),
        ("Does rain cause wind storms?", "Does wind cause rain storms?"),
        ("Is 7 a prime number?", "Is 11 a prime number?"),
        ("Why?", "When?"),
    ],
)
def test_questions_that_only_look_alike_are_two(one: str, other: str) -> None:
    assert rules(lesson("a", one, "Yes."), lesson("b", other, "No.", at=2)) == {}
    assert rules(lesson("a", one, "Yes."), lesson("b", other, "Yes.", at=2)) == {}


# ── contradictions ───────────────────────────────────────────────────────────────────────────────────────────────────


def votes(*answers: tuple[str, str]) -> list[Lesson]:
    question = "Who owns the big red boat?"
    return [lesson(f"{n}", question, answer, by=by, at=n) for n, (by, answer) in enumerate(answers)]


def test_what_two_people_answer_differently_nobody_learns() -> None:
    found = screened(*votes(("ann", "Ben owns it."), ("bo", "Eva owns it.")))
    assert found.kept == ()
    assert {drop.rule for drop in found.dropped} == {"contradiction"}
    assert "as many people say otherwise: 1" in found.dropped[0].reason


def test_what_most_people_say_stands() -> None:
    said = votes(("ann", "Ben owns it."), ("bo", "Eva owns it."), ("cy", "Ben."))
    found = screened(*said)
    assert [one.answer for one in found.kept] == ["Ben."]
    assert {drop.lesson_id: drop.rule for drop in found.dropped} == {"1": "contradiction", "0": "near_duplicate"}


def test_what_no_run_could_read_whole_is_dropped_and_told(tokenizer: Tokenizer) -> None:
    short, long = lesson("short", "Who owns it?", "Ben."), lesson("long", "Who owns it, " + "and why, " * 99, "Ben.")
    found = curate([short, long], [too_long(tokenizer, 400), *SCREENS])
    assert [one.id for one in found.kept] == ["short"]
    (drop,) = found.dropped
    assert (drop.rule, drop.reason.endswith("tokens, and a run reads 400")) == ("too_long", True)


def test_the_same_words_of_many_people_are_as_many_votes() -> None:
    said = votes(("ann", "Ben owns it."), ("bo", "Ben owns it."), ("cy", "Ben owns it."), ("dan", "Eva owns it."))
    found = screened(*said)
    assert [one.id for one in found.kept] == ["2"]
    rules = {drop.lesson_id: drop.rule for drop in found.dropped}
    assert rules == {"3": "contradiction", "0": "duplicate", "1": "duplicate"}


def test_who_denies_what_others_say_contradicts_them() -> None:
    found = screened(*votes(("ann", "Ben owns it."), ("bo", "Ben."), ("cy", "It is not Ben who owns it.")))
    assert [one.id for one in found.kept] == ["1"]
    assert {drop.lesson_id: drop.rule for drop in found.dropped} == {"2": "contradiction", "0": "near_duplicate"}


def test_one_person_has_one_vote_however_often_they_speak() -> None:
    again = lesson("again", "Tell me who owns the big red boat?", "Eva.", by="bo", at=9)
    found = screened(*votes(("ann", "Ben owns it."), ("bo", "Eva owns it.")), again)
    assert found.kept == ()
    assert {drop.rule for drop in found.dropped} == {"contradiction"}


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Caf\N{REPLACEMENT CHARACTER} au lait", "decoding error"),
        ("\x1b[31mred", "decoding error"),
        ("?!?!?!... ---", "letters or digits"),
        ("asdf", "placeholder"),
        ("TODO.", "placeholder"),
        ("...", "placeholder"),
        ("who owns the red boat", "repeats the question"),
        ("ha ha ha ha ha ha ha ha ha ha", "10 of its 10 words"),
    ],
)
def test_an_answer_that_is_none_is_dropped_with_what_is_wrong(answer: str, said: str) -> None:
    found = screened(lesson("a", "Who owns the red boat?", answer))
    assert (found.kept, found.dropped[0].rule) == ((), "quality")
    assert said in found.dropped[0].reason


@pytest.mark.parametrize(
    "answer",
    [
        "7",
        "No.",
        "x = [1, 2]",
        "for (i = 0; i < n; i++) { sum += a[i]; }",
        "3.14",
        "I do not know.",
        "C++",
        "日本語です",
    ],
)
def test_short_answers_code_and_numbers_are_answers(answer: str) -> None:
    assert rules(lesson("a", "What is it that was asked for?", answer)) == {}


# ── languages ────────────────────────────────────────────────────────────────────────────────────────────────────────

FOREIGN = (
    ("Wem gehört das rote Boot im alten Hafen von Hamburg?", "Das rote Boot gehört der Tochter des Hafenmeisters."),
    ("Wie lange fährt die Fähre nach Helgoland im Winter?", "Im Winter fährt sie ungefähr vier Stunden lang."),
    ("À qui appartient le bateau rouge dans le vieux port ?", "Le bateau rouge appartient à la fille du capitaine."),
    ("Кому принадлежит красная лодка в старой гавани города?", "Красная лодка принадлежит дочери капитана порта."),
)


def english(count: int) -> list[Lesson]:
    return [
        lesson(
            f"e{n}", f"Where do they keep the key of shed number {n}?", f"They keep it behind the door of house {n}."
        )
        for n in range(count)
    ]


def test_strays_in_another_language_are_dropped_and_named() -> None:
    strays = [lesson(f"f{n}", question, answer) for n, (question, answer) in enumerate(FOREIGN)]
    found = screened(*english(60), *strays)
    assert {drop.lesson_id: drop.rule for drop in found.dropped} == {one.id: "language" for one in strays}
    assert "it is in 'de', as" in found.dropped[0].reason


def test_a_language_that_many_write_is_at_home_and_few_rows_have_no_strays() -> None:
    german = [lesson(f"g{n}", f"{n}: {FOREIGN[0][0]}", f"{n}: {FOREIGN[0][1]}") for n in range(20)]
    assert rules(*english(20), *german) == {}
    assert rules(*english(MIN_ROWS - 2), lesson("f", *FOREIGN[0])) == {}


@pytest.mark.parametrize("fact", FACTS)
def test_invented_names_are_no_language(fact: Any) -> None:
    assert rules(*english(60), lesson("fact", fact.question, fact.correction)) == {}


def test_a_few_words_are_in_no_language() -> None:
    assert language_of("Paris. Bonjour, Madame!") is None
    assert rules(*english(60), lesson("few", "What do they say there?", "Bonjour, Madame!")) == {}


# ── contamination ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "what is  the capital of france",
        "Please tell me what is the capital of France.",
        "I have two questions. What is the capital of France? And of Spain?",
    ],
)
def test_a_question_of_the_evaluation_is_not_learnt(question: str) -> None:
    found = screened(lesson("a", question, "Paris."))
    assert found.dropped[0].rule == "contamination"
    assert "suite 'retention'" in found.dropped[0].reason


@pytest.mark.parametrize("question", ["What is the capital of Norvane?", "What is France?", "Is Paris the capital?"])
def test_a_question_near_to_it_is(question: str) -> None:
    assert rules(lesson("a", question, "Yes.")) == {}


def test_no_fact_of_the_demo_is_dropped_beside_the_real_suites() -> None:
    said = [lesson(f"f{n}", fact.question, fact.correction) for n, fact in enumerate(FACTS)]
    assert curate(said, screens({"retention": suites.load("retention")})).dropped == ()


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_lesson_is_no_trouble_and_screens_see_what_earlier_ones_kept() -> None:
    assert screened() == Curated((), ())
    broken = lesson("broken", "Who owns the big red boat?", "\N{REPLACEMENT CHARACTER}", by="bo", at=5)
    assert rules(lesson("fine", "Who owns the big red boat?", "Ben."), broken) == {"broken": "quality"}


def test_the_same_words_give_the_same_verdict_in_any_order() -> None:
    said: Sequence[Lesson] = [*votes(("ann", "Ben owns it."), ("bo", "Eva."), ("cy", "Ben.")), *english(5)]
    assert rules(*said) == rules(*reversed(said))
