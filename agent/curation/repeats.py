"""The same said twice, and the same question answered differently. Of what says the same the newest stands."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from agent.curation.lesson import Drop, Lesson


def said_again(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """The same answer of the same person to the same conversation."""
    return _all_but_newest(lessons, lambda lesson: (lesson.asked, lesson.said, lesson.principal))


def duplicates(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """The same answer to the same conversation, whoever gave it."""
    return _all_but_newest(lessons, lambda lesson: (lesson.asked, lesson.said))


def _all_but_newest(lessons: Sequence[Lesson], place_of: Callable[[Lesson], object]) -> Iterator[Drop]:
    newest: dict[object, Lesson] = {}
    for lesson in _oldest_first(lessons):
        place = place_of(lesson)
        if place in newest:
            yield Drop(newest[place].id, "duplicate", f"{lesson.id} says the same")
        newest[place] = lesson


def superseded(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """What a person said before their newest answer to the same question, and took back with it."""
    for group in _by_gist(lessons):
        newest = {lesson.principal: lesson for lesson in group}
        for lesson in group:
            stands = newest[lesson.principal]
            if lesson is not stands and (lesson.asked == stands.asked or not lesson.agrees_with(stands)):
                yield Drop(lesson.id, "superseded", f"a later correction, {stands.id}, stands")


def contradictions(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """Where people answer the same question differently, what more people say than anything else stands; where nothing
    is, nothing does. One person's vote counts once.
    """
    for group in _by_gist(lessons):
        sides = _sides(group)
        if len(sides) == 1:
            continue
        votes = [len({lesson.principal for lesson in side}) for side in sides]
        most = max(votes)
        standing = sides[votes.index(most)] if votes.count(most) == 1 else None
        for side in sides:
            if side is not standing:
                others = next(other for other in sides if other is not side)
                what = "more people say" if standing is not None else "as many people say"
                for lesson in side:
                    yield Drop(
                        lesson.id, "contradiction", f"{what} otherwise: {others[0].id}; agree, then correct again"
                    )


def near_duplicates(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """The same answer to the same question in nearly the same words."""
    for group in _by_gist(lessons):
        for lesson in group[:-1]:
            yield Drop(lesson.id, "near_duplicate", f"{group[-1].id} says nearly the same")


def _by_gist(lessons: Sequence[Lesson]) -> list[list[Lesson]]:
    """Lessons on the same question, oldest first; only where there are several."""
    groups: dict[tuple[str, ...], list[Lesson]] = defaultdict(list)
    for lesson in _oldest_first(lessons):
        groups[lesson.gist].append(lesson)
    return [group for group in groups.values() if len(group) > 1]


def _sides(group: Sequence[Lesson]) -> list[list[Lesson]]:
    """The group parted by what is answered."""
    sides: list[list[Lesson]] = []
    for lesson in group:
        for side in sides:
            if lesson.agrees_with(side[0]):
                side.append(lesson)
                break
        else:
            sides.append([lesson])
    return sides


def _oldest_first(lessons: Sequence[Lesson]) -> list[Lesson]:
    return sorted(lessons, key=lambda lesson: lesson.feedback.created_at)
