"""What people prefer, as training rows: pairs and thumbs, each with its source. Pure.

Thumbs are weak labels, and the easiest to flood: of each person only a few are taken.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent.curation.lesson import Drop, Judgement
from agent.lesson_rows import plain

Row = dict[str, Any]
ALL = 1 << 63


def few_thumbs(
    judgements: Sequence[Judgement], *, per_person: int, share: float
) -> tuple[tuple[Judgement, ...], tuple[Drop, ...]]:
    """Of each person at most `per_person` thumbs, or as many as make this share of everybody's judgements where that is
    more; the newest stay. What is left out comes with its reason.
    """
    given = Counter(one.principal for one in judgements if one.is_thumb)
    limits = {name: max(per_person, _within(share, len(judgements) - count)) for name, count in given.items()}
    taken: Counter[str] = Counter()
    left_out = {}
    for judgement in sorted(judgements, key=lambda one: one.feedback.created_at, reverse=True):
        if judgement.is_thumb:
            name = judgement.principal
            taken[name] += 1
            if taken[name] > limits[name]:
                left_out[judgement.id] = limits[name]
    drops = tuple(
        Drop(
            one.id,
            "thumbs_over_cap",
            f"of one person's thumbs, the newest {left_out[one.id]} are learnt; correct an answer, or compare two",
        )
        for one in judgements
        if one.id in left_out
    )
    return tuple(one for one in judgements if one.id not in left_out), drops


def _within(share: float, num_others: int) -> int:
    """How many are this share of themselves and so many others: a flood must not raise its own limit."""
    return ALL if share >= 1.0 else int(share / (1.0 - share) * num_others)


def preference_row(judgement: Judgement) -> Row:
    """`kind` "preference" with `chosen` and `rejected`, or "rated" with `answer` and `is_good`."""
    row = {"messages": plain(judgement.interaction.messages), "source": _source(judgement)}
    if judgement.rival is None:
        return {"kind": "rated", "answer": judgement.text, "is_good": judgement.is_good, **row}
    return {"kind": "preference", "chosen": judgement.text, "rejected": judgement.rival, **row}


def _source(judgement: Judgement) -> Row:
    is_comparison = judgement.other_id is not None
    source = {
        "made_by": "person" if judgement.feedback.correction else "model",
        "checked_by": judgement.principal,
        "comparison_id" if is_comparison else "feedback_id": judgement.id,
        "interaction_id": judgement.interaction.id,
        "checkpoint_id": judgement.interaction.checkpoint_id,
    }
    return source | ({"other_id": judgement.other_id} if is_comparison else {})
