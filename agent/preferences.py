"""What people prefer, as training rows: pairs and thumbs, each with its source. Pure.

Thumbs are weak labels, and the easiest to flood: of each person only a few are taken.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent.curation.lesson import Drop, Judgement

Row = dict[str, Any]


def few_thumbs(
    judgements: Sequence[Judgement], *, per_person: int, share: float
) -> tuple[tuple[Judgement, ...], tuple[Drop, ...]]:
    """Of each person at most `per_person` thumbs, or this share of all judgements where that is more; the newest stay.
    What is left out comes with its reason.
    """
    limit = max(per_person, int(share * len(judgements)))
    taken: Counter[str] = Counter()
    left_out = set()
    for judgement in sorted(judgements, key=lambda one: one.feedback.created_at, reverse=True):
        if judgement.is_thumb:
            taken[judgement.principal] += 1
            if taken[judgement.principal] > limit:
                left_out.add(judgement.id)
    reason = f"of one person's thumbs, the newest {limit} are learnt; correct an answer, or compare two"
    drops = tuple(Drop(one.id, "thumbs_over_cap", reason) for one in judgements if one.id in left_out)
    return tuple(one for one in judgements if one.id not in left_out), drops


def preference_row(judgement: Judgement) -> Row:
    """`kind` "preference" with `chosen` and `rejected`, or "rated" with `answer` and `is_good`."""
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in judgement.interaction.messages]
    row = {"messages": messages, "source": _source(judgement)}
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
