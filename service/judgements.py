"""What people prefer, out of everything they said: corrections against what they correct, the better of two, thumbs."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from agent.curation.lesson import Drop, Judgement, Lesson, Screen
from agent.curation.pipeline import curate
from agent.dataset import DatasetSettings
from agent.preferences import few_thumbs
from agent.scoring import normalise
from policies.admission import PreferFacts, may_prefer
from policies.engine import PolicySet
from service.quota import Quota, newest_first
from store.comparisons import Choice, Comparison
from store.records import Feedback, FinishReason, Interaction, Rating


@dataclass(frozen=True, slots=True)
class Judged:
    """What may be learnt of it, and what not with its reason."""

    kept: tuple[Judgement, ...] = ()
    dropped: tuple[Drop, ...] = ()


def judge(
    lessons: Iterable[Lesson],
    standing: Iterable[tuple[Interaction, Feedback]],
    comparisons: Iterable[Comparison],
    interaction: Callable[[str], Interaction | None],
    *,
    policy_set: PolicySet,
    screens: Sequence[Screen],
    settings: DatasetSettings,
) -> Judged:
    """`lessons` are the corrections worth learning; `standing` is everybody's last word on each answer. Policy first,
    then the screens, and last the cap on thumbs, so that it counts what is left only.
    """
    standing = list(standing)
    excluded = {about.id for about, word in standing if word.is_excluded}
    said = [*map(_edit, lessons), *_compared(comparisons, interaction, excluded), *_thumbs(standing)]
    admitted, refused = _admitted(said, interaction, policy_set, Quota(settings.max_per_person))
    curated = curate(admitted, screens)
    left = {lesson.id for lesson in curated.kept}
    kept, over = few_thumbs(
        [judgement for judgement in admitted if judgement.id in left],
        per_person=settings.max_thumbs_per_person,
        share=settings.max_thumb_share,
    )
    return Judged(kept, (*refused, *curated.dropped, *over))


def _edit(lesson: Lesson) -> Judgement:
    return Judgement(lesson.interaction, lesson.feedback, text=lesson.answer, rival=lesson.interaction.reply)


def _compared(
    comparisons: Iterable[Comparison], interaction: Callable[[str], Interaction | None], excluded: Set[str]
) -> Iterator[Judgement]:
    """ "Neither" and "I don't know" prefer nothing; nor does what is said of an answer that is not to be learnt."""
    for said in comparisons:
        if said.choice not in (Choice.FIRST, Choice.SECOND):
            continue
        ids = (said.first_id, said.second_id) if said.choice is Choice.FIRST else (said.second_id, said.first_id)
        better, other = map(interaction, ids)
        if better is not None and other is not None:
            is_excluded = not excluded.isdisjoint(ids)
            word = Feedback(said.id, better.id, said.created_at, said.principal, said.source, is_excluded=is_excluded)
            yield Judgement(better, word, text=better.reply, rival=other.reply, other_id=other.id)


def _thumbs(standing: Iterable[tuple[Interaction, Feedback]]) -> Iterator[Judgement]:
    for interaction, feedback in standing:
        if feedback.rating is not None and feedback.correction is None:
            yield Judgement(interaction, feedback, text=interaction.reply, is_good=feedback.rating is Rating.UP)


def _admitted(
    said: Iterable[Judgement], interaction: Callable[[str], Interaction | None], policy_set: PolicySet, quota: Quota
) -> tuple[list[Judgement], list[Drop]]:
    admitted, refused = [], []
    for judgement in newest_first(said, lambda one: one.feedback):
        ruling = may_prefer(_facts(judgement, interaction, quota), policy_set)
        if ruling.allowed:
            quota.take(judgement.principal)
            admitted.append(judgement)
        else:
            refused.append(Drop(judgement.id, ruling.rules[0].id, ruling.reason))
    return admitted[::-1], refused[::-1]


def _facts(judgement: Judgement, interaction: Callable[[str], Interaction | None], quota: Quota) -> PreferFacts:
    others = [interaction(judgement.other_id)] if judgement.other_id else []
    # of a correction the person wrote what is chosen; what it corrects may have been cut off
    reasons = [] if judgement.feedback.correction else [judgement.interaction.finish_reason]
    reasons += [other.finish_reason for other in others if other is not None]
    answers = tuple(text for text in (judgement.text, judgement.rival) if text is not None)
    return PreferFacts(
        id=judgement.id,
        principal=judgement.principal,
        texts=tuple(str(message["content"]) for message in judgement.interaction.messages),
        answers=answers,
        is_same=len(answers) > 1 and normalise(answers[0]) == normalise(answers[1]),
        is_complete=all(reason is FinishReason.STOP for reason in reasons),
        is_excluded=judgement.feedback.is_excluded,
        num_taken=quota.num_taken(judgement.principal),
        principal_cap=quota.cap(judgement.principal),
    )
