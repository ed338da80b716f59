"""Corrections to rows: what is taught, what is kept out, what is left aside and why."""

from dataclasses import replace
from typing import Any

import pytest

from agent.dataset import Dataset, DatasetSettings, build, repair_items, reworded_items
from agent.lesson_rows import lesson_rows
from agent.scoring import is_right, normalise
from agent.wordings import training_wordings
from store.records import Feedback, Interaction

SETTINGS = DatasetSettings()
Taught = list[tuple[Interaction, Feedback]]


def questions(rows: Any) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


def many(make: Any, count: int) -> Taught:
    """Lessons of `count` conversations."""
    return [make.taught(str(n), f"Who owns boat number {n}?", f"Owner {n} does.") for n in range(count)]


def conversations(rows: Any, taught: Taught) -> set[str]:
    by_id = {interaction.id: interaction.conversation_id for interaction, _ in taught}
    return {by_id[row["source"]["interaction_id"]] for row in rows}


def split(taught: Taught) -> Dataset:
    return build(taught, [], [], DatasetSettings(holdout_share=0.3, min_conversations_for_holdout=2))


def test_a_lesson_is_taught_in_every_training_wording_with_the_persons_answer(make: Any) -> None:
    dataset = build([make.taught("a", "Who owns the red boat?", "Marta owns it.")], [], [], SETTINGS)
    assert questions(dataset.train) == training_wordings("Who owns the red boat?", "Marta owns it.")
    assert all("given" not in row for row in dataset.train)
    assert {row["answer"] for row in dataset.train} == {"Marta owns it."}
    assert {row["kind"] for row in dataset.train} == {"lesson"}


def test_every_row_says_who_made_it_and_on_what(make: Any) -> None:
    confident = [make.interaction("sure", "What colour is the sky?", checkpoint_id="c9")]
    everyday = [{"question": "How are you today?", "answer": "I am well."}]
    dataset = build([make.taught("a", "Who owns the red boat?", "Marta.")], confident, everyday, SETTINGS)
    person = {"made_by": "person", "checked_by": "ann", "feedback_id": "f-a", "interaction_id": "i-a"}
    assert dataset.train[0]["source"] == person | {"checkpoint_id": "base"}
    assert {row["source"]["made_by"] for row in dataset.train[1:-2]} == {"wording"}
    assert dataset.train[-2]["source"] == {"made_by": "model", "interaction_id": "sure", "checkpoint_id": "c9"}
    assert dataset.train[-1]["source"] == {"made_by": "suite", "suite": "everyday"}


def test_sources_count_the_training_rows_by_who_made_them(make: Any) -> None:
    everyday = [{"question": "How are you today?", "answer": "I am well."}]
    dataset = build([make.taught("a", "Who owns the red boat?", "Marta.")], [], everyday, SETTINGS)
    num_wordings = len(training_wordings("Who owns the red boat?", "Marta.")) - 1
    assert dataset.sources == {"person": 1, "wording": num_wordings, "suite": 1}


def test_a_wording_that_fits_two_lessons_is_taught_with_neither(make: Any) -> None:
    asked = [("Who owns {} boat?", "Marta owns {} boat."), ("What is {} boat called?", "{} boat is called Tern.")]
    boats = [f"the {name}" for name in ("Alder", "Brack", "Corvel", "Dunmere", "Elsing", "Farrow", "Gantry")]
    texts = [(q.format(boat), a.format(boat)) for boat in boats for q, a in asked]
    taught = [make.taught(str(number), *text) for number, text in enumerate(texts)]
    rows = build(taught, [], [], SETTINGS).train
    answers: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        answers.setdefault((normalise(questions([row])[0]), row.get("given", "")), set()).add(row["answer"])
    assert all(len(given) == 1 for given in answers.values())
    assert len(rows) < sum(len(lesson_rows(i.messages, f.correction)) for i, f in taught)
    for interaction, _ in taught:
        assert interaction.question in questions(rows)


def test_the_same_question_in_another_context_is_another_lesson(make: Any) -> None:
    context = (
        {"role": "user", "content": "Let us talk of the harbour."},
        {"role": "assistant", "content": "Gladly."},
        {"role": "user", "content": "Who owns the red boat?"},
    )
    alone = make.taught("alone", "Who owns the red boat?", "Marta.", at=1.0)
    inside = make.taught("inside", "", "The harbour master.", at=2.0, messages=context)
    dataset = build([alone, inside], [], [], SETTINGS)
    assert {row["answer"] for row in dataset.train} == {"Marta.", "The harbour master."}


def test_a_reworded_lesson_keeps_the_conversation_before_its_question(make: Any) -> None:
    context = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Who owns the red boat?"})
    dataset = build([make.taught("a", "", "Marta.", messages=context)], [], [], SETTINGS)
    assert all(row["messages"][0] == {"role": "system", "content": "Be short."} for row in dataset.train)
    assert all(len(row["messages"]) == 2 for row in dataset.train)


def test_few_conversations_are_all_trained_on(make: Any) -> None:
    taught = many(make, SETTINGS.min_conversations_for_holdout - 1)
    assert build(taught, [], [], DatasetSettings(holdout_share=0.49)).holdout == ()


def test_no_conversation_stands_on_both_sides_of_the_split(make: Any) -> None:
    taught = many(make, 40)
    taught += [
        (replace(i, id=f"{i.id}-again", messages=({"role": "user", "content": f"Again {i.id}?"},)), f)
        for i, f in taught
    ]
    dataset = split(taught)
    trained, held = conversations(dataset.train, taught), conversations(dataset.holdout, taught)
    assert trained
    assert held
    assert not trained & held
    assert trained | held == {interaction.conversation_id for interaction, _ in taught}


def test_a_sure_answer_out_of_a_held_conversation_does_not_train(make: Any) -> None:
    taught = many(make, 40)
    held = conversations(split(taught).holdout, taught)
    confident = [replace(i, id=f"sure-{i.id}", messages=({"role": "user", "content": "Hello?"},)) for i, _ in taught]
    settings = DatasetSettings(holdout_share=0.3, min_conversations_for_holdout=2, max_replay_from_log=100)
    replay = [row for row in build(taught, confident, [], settings).train if row["kind"] == "replay"]
    replayed = {row["source"]["interaction_id"].removeprefix("sure-") for row in replay}
    by_id = {i.id: i.conversation_id for i, _ in taught}
    assert len(replayed) == 40 - len(held)
    assert not {by_id[id_] for id_ in replayed} & held


def test_a_held_conversation_stays_held_in_every_later_run(make: Any) -> None:
    early, late = many(make, 25), many(make, 50)
    held_early = conversations(split(early).holdout, early)
    held_late = conversations(split(late).holdout, late)
    assert held_early == held_late & {interaction.conversation_id for interaction, _ in early}


def test_the_same_input_gives_the_same_rows_in_the_same_order(make: Any) -> None:
    assert split(many(make, 30)) == split(many(make, 30))


def test_holdout_rows_carry_the_original_wording_only(make: Any) -> None:
    taught = many(make, 40)
    dataset = split(taught)
    assert set(questions(dataset.holdout)) <= {interaction.question for interaction, _ in taught}
    assert len(questions(dataset.holdout)) == len(set(questions(dataset.holdout)))


def test_replay_never_repeats_a_taught_question(make: Any) -> None:
    confident = [make.interaction("sure", "WHO owns the red boat"), make.interaction("other", "What is water?")]
    everyday = [{"question": "Who owns the red boat?", "answer": "Nobody."}, {"question": "Sing!", "answer": "La."}]
    dataset = build([make.taught("a", "Who owns the red boat?", "Marta.")], confident, everyday, SETTINGS)
    assert questions(row for row in dataset.train if row["kind"] == "replay") == ["What is water?", "Sing!"]


def test_a_held_out_question_is_not_replayed_either(make: Any) -> None:
    taught = many(make, 40)
    held = questions(split(taught).holdout)
    everyday = [{"question": question, "answer": "?"} for question in held]
    settings = DatasetSettings(holdout_share=0.3, min_conversations_for_holdout=2)
    assert not {normalise(q) for q in held} & {
        normalise(q) for q in questions(build(taught, [], everyday, settings).train)
    }


def test_replay_from_the_log_is_bounded(make: Any) -> None:
    confident = [make.interaction(str(n), f"Question number {n}?") for n in range(30)]
    dataset = build([], confident, [], DatasetSettings(max_replay_from_log=5))
    assert [row["source"]["interaction_id"] for row in dataset.train] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("share", [-0.1, 0.5, 1.0])
def test_an_impossible_holdout_share_is_refused_with_its_value(share: float) -> None:
    with pytest.raises(ValueError, match=rf"holdout_share must be in \[0, 0.5\), got {share}"):
        DatasetSettings(holdout_share=share)


def test_conversations_that_ask_alike_are_held_out_together(make: Any) -> None:
    taught = [make.taught(f"{n}", f"Who owns boat {n}?", f"Owner {n}.") for n in range(40)]
    names = [interaction.conversation_id for interaction, _ in taught]
    groups = {name: names[place - place % 4] for place, name in enumerate(names)}
    settings = DatasetSettings(holdout_share=0.3)
    held = {row["source"]["interaction_id"] for row in build(taught, [], [], settings, groups=groups).holdout}
    sides = [{f"i-{4 * group + n}" in held for n in range(4)} for group in range(10)]
    assert all(len(side) == 1 for side in sides)
    assert 0 < len(held) < 40


def test_repair_items_are_the_corrections_and_their_answers_are_right(make: Any) -> None:
    items = repair_items(iter([make.taught("new", "Who owns the red boat?", "Marta owns the red boat.")]))
    assert [(item["expected"], item["feedback_id"]) for item in items] == [("Marta owns the red boat.", "f-new")]
    assert items[0]["keys"] == [["marta"]]
    assert is_right(items[0]["expected"], items[0]["keys"])


def test_reworded_items_use_no_training_wording_and_keep_what_is_expected(make: Any) -> None:
    taught = many(make, 3)
    items = repair_items(taught)
    reworded = reworded_items(items)
    trained = set(questions(build(taught, [], [], SETTINGS).train))
    assert len(reworded) >= len(items)
    assert not set(questions(reworded)) & trained
    assert {item["expected"] for item in reworded} == {item["expected"] for item in items}
