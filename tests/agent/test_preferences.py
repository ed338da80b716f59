"""What people prefer, to rows: both kinds with their sources, few thumbs of each person, and no opposite words."""

from typing import Any

import pytest

from agent.curation.judgements import judgement_screens
from agent.curation.lesson import Judgement
from agent.curation.pipeline import curate
from agent.dataset import DatasetSettings, build
from agent.preferences import few_thumbs, preference_row

SETTINGS = DatasetSettings()


def thumb(
    make: Any, name: str, *, is_good: bool = True, who: str = "ann", reply: str = "A ship.", at: float = 1.0
) -> Judgement:
    interaction = make.interaction(f"i-{name}", f"What is boat {name.split('-', maxsplit=1)[0]}?", reply=reply)
    word = make.feedback(f"f-{name}", interaction.id, None, principal=who, created_at=at)
    return Judgement(interaction, word, text=reply, is_good=is_good)


def pair(make: Any, name: str, better: str, worse: str, *, who: str = "ann", at: float = 1.0) -> Judgement:
    interaction = make.interaction(f"i-{name}", "What is a boat?", reply=better)
    word = make.feedback(f"c-{name}", interaction.id, None, principal=who, created_at=at)
    return Judgement(interaction, word, text=better, rival=worse, other_id=f"o-{name}")


def edit(make: Any, name: str) -> Judgement:
    interaction, feedback = make.taught(name, "Who owns the red boat?", "Marta owns it.")
    return Judgement(interaction, feedback, text="Marta owns it.", rival=interaction.reply)


def left(judgements: list[Judgement]) -> tuple[set[str], dict[str, str]]:
    """Ids of what the screens keep, and by which rule the others went."""
    curated = curate(judgements, judgement_screens({"flattery": [{"question": "Is ice hotter than fire?"}]}))
    return {one.id for one in curated.kept}, {drop.lesson_id: drop.rule for drop in curated.dropped}


def test_a_correction_is_chosen_over_the_reply_it_corrects_and_names_who_made_it(make: Any) -> None:
    row = preference_row(edit(make, "a"))
    assert (row["kind"], row["chosen"], row["rejected"]) == ("preference", "Marta owns it.", "I do not know.")
    source = {"made_by": "person", "checked_by": "ann", "feedback_id": "f-a", "interaction_id": "i-a"}
    assert row["source"] == source | {"checkpoint_id": "base"}


def test_the_better_of_two_is_the_models_text_that_a_person_checked(make: Any) -> None:
    row = preference_row(pair(make, "a", "A ship.", "Wood."))
    assert (row["kind"], row["chosen"], row["rejected"]) == ("preference", "A ship.", "Wood.")
    source = {"made_by": "model", "checked_by": "ann", "comparison_id": "c-a", "interaction_id": "i-a"}
    assert row["source"] == source | {"other_id": "o-a", "checkpoint_id": "base"}


@pytest.mark.parametrize("is_good", [True, False])
def test_a_thumb_is_a_rated_row(make: Any, is_good: bool) -> None:
    row = preference_row(thumb(make, "a", is_good=is_good))
    assert (row["kind"], row["answer"], row["is_good"]) == ("rated", "A ship.", is_good)
    assert row["source"]["feedback_id"] == "f-a"


def test_of_each_person_only_the_newest_thumbs_are_taken(make: Any) -> None:
    ann = [thumb(make, f"ann-{n}", at=float(n)) for n in range(5)]
    bob = [thumb(make, "bob-0", who="bob")]
    kept, dropped = few_thumbs([*ann, *bob], per_person=2, share=0.0)
    assert [one.id for one in kept] == ["f-ann-3", "f-ann-4", "f-bob-0"]
    assert {drop.rule for drop in dropped} == {"thumbs_over_cap"}
    assert "the newest 2 are learnt" in dropped[0].reason


def test_where_more_is_judged_a_persons_share_grows_with_it_and_pairs_are_not_capped(make: Any) -> None:
    thumbs = [thumb(make, f"t-{n}") for n in range(10)]
    pairs = [pair(make, f"p-{n}", "A ship.", f"Wood {n}.") for n in range(10)]
    kept, _ = few_thumbs([*thumbs, *pairs], per_person=2, share=0.25)
    assert sum(one.is_thumb for one in kept) == 3  # with the ten pairs, less than a quarter of all
    assert sum(not one.is_thumb for one in kept) == 10


def test_a_flood_of_one_persons_thumbs_does_not_raise_their_own_share(make: Any) -> None:
    flood = [thumb(make, f"f-{n}") for n in range(200)]
    others = [thumb(make, f"o-{n}", who=f"person {n}") for n in range(12)]
    kept, _ = few_thumbs([*flood, *others], per_person=2, share=0.25)
    assert sum(one.principal == flood[0].principal for one in kept) == 4
    assert sum(one.principal != flood[0].principal for one in kept) == 12


def test_what_people_judge_the_opposite_way_is_not_learnt_unless_more_agree(make: Any) -> None:
    tied = [pair(make, "1", "A ship.", "Wood."), pair(make, "2", "Wood.", "A ship.", who="bob")]
    assert left(tied) == (set(), {"c-1": "contradiction", "c-2": "contradiction"})
    assert left([*tied, pair(make, "3", "Wood.", "A ship.", who="cy", at=2.0)]) == (
        {"c-3"},
        {"c-1": "contradiction", "c-2": "duplicate"},
    )
    assert left([thumb(make, "1-up"), thumb(make, "1-down", is_good=False, who="bob")])[0] == set()


def test_a_flood_of_one_persons_words_counts_once(make: Any) -> None:
    flood = [pair(make, f"f{n}", "A ship.", "Wood.", at=float(n)) for n in range(9)]
    kept, dropped = left([*flood, pair(make, "other", "Wood.", "A ship.", who="bob")])
    assert kept == set()
    assert set(dropped.values()) == {"contradiction"}


def test_noise_may_be_disliked_but_not_liked(make: Any) -> None:
    noise = "\N{REPLACEMENT CHARACTER}" * 9
    kept, dropped = left([thumb(make, "1", reply=noise), thumb(make, "2", reply=noise, is_good=False)])
    assert (kept, dropped) == ({"f-2"}, {"f-1": "quality"})


def test_a_question_of_a_suite_is_not_judged_either(make: Any) -> None:
    interaction = make.interaction("i-1", "Is ice hotter than fire?", reply="No.")
    judged = Judgement(interaction, make.feedback("f-1", "i-1", None), text="No.")
    assert left([judged]) == (set(), {"f-1": "contamination"})


def test_rows_of_what_people_prefer_come_only_when_they_are_wanted_and_never_from_a_held_conversation(
    make: Any,
) -> None:
    taught = [make.taught(str(n), f"Who owns boat number {n}?", f"Owner {n} does.") for n in range(40)]
    judged = [Judgement(i, f, text=str(f.correction), rival=i.reply) for i, f in taught]
    settings = DatasetSettings(holdout_share=0.3, min_conversations_for_holdout=2)
    assert {row["kind"] for row in build(taught, [], [], settings).train} == {"lesson"}
    dataset = build(taught, [], [], settings, has_lessons=False, judged=judged)
    assert {row["kind"] for row in dataset.train} == {"preference"}
    trained = {row["source"]["interaction_id"] for row in dataset.train}
    assert not trained & {row["source"]["interaction_id"] for row in dataset.holdout}
    assert len(dataset.train) + len(dataset.holdout) == 40
    assert dataset.sources == {"person, preferred": len(dataset.train)}


def test_a_judged_question_is_not_replayed(make: Any) -> None:
    everyday = [{"question": "What is a boat?", "answer": "A ship."}]
    dataset = build([], [], everyday, SETTINGS, judged=[pair(make, "a", "A ship.", "Wood.")])
    assert [row["kind"] for row in dataset.train] == ["preference"]


@pytest.mark.parametrize("changes", [{"max_thumbs_per_person": -1}, {"max_thumb_share": 1.1}])
def test_impossible_caps_are_refused_with_their_values(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_thumbs_per_person must not be negative"):
        DatasetSettings(**changes)
