"""Screens for what people prefer: what is praised must be fit to learn, and people must not say the opposite of each
other. What a person says twice counts once.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.curation.contamination import contaminated
from agent.curation.language import foreign
from agent.curation.lesson import Drop, Judgement, Screen
from agent.curation.texts import unfit


def judgement_screens(suites: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Screen, ...]:
    """The usual ones, against these suites. They are for judgements only."""
    return (_unfit, contaminated(suites), foreign, _opposed, _repeated)


def _unfit(judgements: Sequence[Any]) -> Iterator[Drop]:
    """A bad answer may be noise; one to be learnt may not."""
    yield from unfit([judgement for judgement in judgements if judgement.is_good])


def _opposed(judgements: Sequence[Any]) -> Iterator[Drop]:
    """Where people judge the same texts the opposite way, what more people say stands; where as many do, nothing."""
    for group in _by_subject(judgements):
        sides: dict[object, list[Judgement]] = defaultdict(list)
        for judgement in group:
            sides[(judgement.said, judgement.is_good)].append(judgement)
        if len(sides) == 1:
            continue
        votes = {side: len({one.principal for one in said}) for side, said in sides.items()}
        most = [side for side, count in votes.items() if count == max(votes.values())]
        for side, said in sides.items():
            if most != [side]:
                other = next(sides[name][0] for name in sides if name != side)
                yield from (Drop(one.id, "contradiction", f"{other.id} says the opposite; agree first") for one in said)


def _repeated(judgements: Sequence[Any]) -> Iterator[Drop]:
    """The same judgement again, whoever gave it: the newest stands."""
    for group in _by_subject(judgements):
        for judgement in group[:-1]:
            yield Drop(judgement.id, "duplicate", f"{group[-1].id} says the same")


def _by_subject(judgements: Sequence[Judgement]) -> list[list[Judgement]]:
    """Judgements on the same texts, oldest first; only where there are several."""
    groups: dict[object, list[Judgement]] = defaultdict(list)
    for judgement in sorted(judgements, key=lambda one: one.feedback.created_at):
        groups[(judgement.subject, judgement.is_thumb)].append(judgement)
    return [group for group in groups.values() if len(group) > 1]
