"""Interactions and people's words to training rows: the curated snapshot of one run. Pure; files are the caller's.

A row has `kind` ("lesson" teaches, "replay" holds the model where it is), `messages`, `answer` and a `source` that says
who or what made it, on which interaction, under which checkpoint. Lessons carry a person's words only. What people
prefer makes rows of other kinds (see `agent.preferences`). The same conversation never stands on both sides of the
split.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agent.curation.lesson import Judgement
from agent.lesson_rows import Row, lesson_rows, plain, reworded, unambiguous
from agent.preferences import preference_row
from agent.scoring import answer_key, normalise
from agent.wordings import held_out_wordings
from store.records import Feedback, Interaction

JUDGED = {"rated": ", rated", "preference": ", preferred"}  # beside who made a row


@dataclass(frozen=True, slots=True)
class DatasetSettings:
    """Sizes of the snapshot. Whoever corrects an answer expects the correction to be learnt, so none is held out unless
    that is asked for; wordings that no row uses measure what carries over.
    """

    holdout_share: float = 0.0
    min_conversations_for_holdout: int = 20
    max_replay_from_log: int = 16
    max_per_person: int = 200  # words of one person who is not this machine's own
    max_thumbs_per_person: int = 2  # or, where it is more:
    max_thumb_share: float = 0.25  # of all judgements, for one person's thumbs

    def __post_init__(self) -> None:
        if not 0.0 <= self.holdout_share < 0.5:
            raise ValueError(f"holdout_share must be in [0, 0.5), got {self.holdout_share}")
        if self.max_thumbs_per_person < 0 or not 0.0 <= self.max_thumb_share <= 1.0:
            raise ValueError(
                "max_thumbs_per_person must not be negative and max_thumb_share in [0, 1], got "
                f"{self.max_thumbs_per_person} and {self.max_thumb_share}"
            )


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to train on, and rows kept out."""

    train: tuple[Row, ...]
    holdout: tuple[Row, ...]

    @property
    def sources(self) -> dict[str, int]:
        """Training rows by who or what made them."""
        return dict(Counter(str(row["source"]["made_by"]) + JUDGED.get(row["kind"], "") for row in self.train))


def build(
    taught: Sequence[tuple[Interaction, Feedback]],
    confident: Sequence[Interaction],
    everyday: Sequence[Mapping[str, str]],
    settings: DatasetSettings,
    *,
    has_lessons: bool = True,
    judged: Sequence[Judgement] = (),
    groups: Mapping[str, str] = MappingProxyType({}),
) -> Dataset:
    """One snapshot out of curated corrections (oldest first), sure answers, everyday prompts, and curated judgements.
    Without lessons, corrections are only held out, or stand in judgements. `groups` names what stays on one side with
    others, by conversation (see `agent.split`).
    """
    lessons = list(taught)
    held = _held_out(lessons, settings, groups)
    learnt = [lesson for lesson in lessons if has_lessons and lesson[0].conversation_id not in held]
    train = _lessons(learnt)
    train += [preference_row(one) for one in judged if one.interaction.conversation_id not in held]
    holdout = [_held_out_row(i, f) for i, f in lessons if i.conversation_id in held]
    questions = {normalise(interaction.question) for interaction, _ in lessons}
    questions |= {normalise(judgement.question) for judgement in judged}
    sure = [interaction for interaction in confident if interaction.conversation_id not in held]
    train += [row for row in _replay_rows(sure, everyday, settings) if normalise(_question(row)) not in questions]
    return Dataset(tuple(train), tuple(holdout))


def repair_items(taught: Iterable[tuple[Interaction, Feedback]]) -> list[Row]:
    """Every correction that stands, as an evaluation item: {messages, expected, keys, feedback_id}."""
    items = []
    for interaction, feedback in taught:
        expected = feedback.correction or ""
        keys = [list(answer_key(interaction.question, expected))]
        items.append(
            {"messages": plain(interaction.messages), "expected": expected, "keys": keys, "feedback_id": feedback.id}
        )
    return items


def reworded_items(items: Iterable[Row]) -> list[Row]:
    """Evaluation items under wordings that no training row uses."""
    return [
        {**item, "messages": reworded(item["messages"], wording)}
        for item in items
        for wording in held_out_wordings(str(item["messages"][-1]["content"]))
    ]


def is_judged(row: Row) -> bool:
    """Whether a row teaches what people judged of the model's own words; of corrections, that they were made."""
    return row["kind"] in JUDGED and row["source"]["made_by"] == "model"


def _held_out(
    lessons: Sequence[tuple[Interaction, Feedback]], settings: DatasetSettings, groups: Mapping[str, str]
) -> set[str]:
    """Conversations kept out, chosen by the hash of their group's id so that they stay out in every later run."""
    conversations = {interaction.conversation_id for interaction, _ in lessons}
    if len(conversations) < settings.min_conversations_for_holdout:
        return set()
    return {one for one in conversations if _fraction(groups.get(one, one)) < settings.holdout_share}


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _lessons(learnt: Sequence[tuple[Interaction, Feedback]]) -> list[Row]:
    """All rows that teach."""
    return unambiguous(
        [
            {"kind": "lesson", **row, "source": row["source"] | _source(interaction, feedback)}
            for interaction, feedback in learnt
            for row in lesson_rows(interaction.messages, feedback.correction or "")
        ]
    )


def _held_out_row(interaction: Interaction, feedback: Feedback) -> Row:
    source = {"made_by": "person", **_source(interaction, feedback)}
    return {"kind": "lesson", "messages": plain(interaction.messages), "answer": feedback.correction, "source": source}


def _source(interaction: Interaction, feedback: Feedback) -> dict[str, str]:
    return {
        "checked_by": feedback.principal,
        "feedback_id": feedback.id,
        "interaction_id": interaction.id,
        "checkpoint_id": interaction.checkpoint_id,
    }


def _replay_rows(
    confident: Sequence[Interaction], everyday: Sequence[Mapping[str, str]], settings: DatasetSettings
) -> list[Row]:
    """Rows that anchor the model: its own sure answers, and shipped everyday ones.
    They teach no text (see the method).
    """
    rows: list[Row] = [
        {
            "kind": "replay",
            "messages": plain(interaction.messages),
            "answer": interaction.reply,
            "source": {
                "made_by": "model",
                "interaction_id": interaction.id,
                "checkpoint_id": interaction.checkpoint_id,
            },
        }
        for interaction in confident[: settings.max_replay_from_log]
    ]
    rows += [
        {
            "kind": "replay",
            "messages": [{"role": "user", "content": item["question"]}],
            "answer": item["answer"],
            "source": {"made_by": "suite", "suite": "everyday"},
        }
        for item in everyday
    ]
    return rows


def _question(row: Row) -> str:
    return str(row["messages"][-1]["content"])
