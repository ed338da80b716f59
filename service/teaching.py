"""What people say about answers: feedback and labels to rows.
One place for the endpoint, the page and the command line.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from store.comparisons import Choice, Comparison, Comparisons
from store.interactions import Interactions
from store.labels import Labels, NotOpen, UnknownLabelTask
from store.records import Feedback, FeedbackSource, Interaction, LabelState, LabelTask, Rating

LABEL_STATES = {
    "answer": LabelState.ANSWERED,
    "right": LabelState.RIGHT,
    "wrong": LabelState.WRONG,
    "document": LabelState.DOCUMENTED,
    "unknown": LabelState.UNKNOWN,
    "skip": LabelState.SKIPPED,
    "exclude": LabelState.EXCLUDED,
}
RATINGS = {"right": Rating.UP, "wrong": Rating.DOWN}
WORDLESS = ("skip", "unknown")  # they settle a question and say nothing of the answer
CHOICES = [choice.value for choice in Choice]  # what may be said of two answers, beside "skip"


class NothingSaid(ValueError):
    """A feedback without rating, correction, document or comment; a question settled by too few or too many words."""


class Teaching:
    """Records people's words; durable when a method returns."""

    def __init__(
        self,
        interactions: Interactions,
        labels: Labels,
        comparisons: Comparisons,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interactions = interactions
        self._labels = labels
        self._comparisons = comparisons
        self._clock = clock

    def give_feedback(
        self,
        interaction_id: str,
        principal: str,
        *,
        rating: Rating | None = None,
        correction: str | None = None,
        comment: str | None = None,
        document: str | None = None,
    ) -> Feedback:
        """The newest feedback of an interaction stands; earlier ones are kept.
        UnknownInteraction when there is none.
        """
        texts = [(text or "").strip() for text in (correction, comment, document)]
        if rating is None and not any(texts):
            raise NothingSaid("nothing was said: give a rating, a correction, a document or a comment")
        feedback = self._feedback(
            interaction_id,
            principal,
            FeedbackSource.FEEDBACK,
            rating=rating,
            correction=correction,
            comment=comment,
            document=document,
        )
        self._interactions.add_feedback(feedback)
        self._settle(interaction_id, _settled_by(feedback))
        return feedback

    def answer_label(
        self, task_id: str, principal: str, action: str, correction: str | None, document: str | None = None
    ) -> LabelTask:
        """Resolve the question with such an id: "answer" needs a correction and may name a document, "document" needs
        one alone; the others take neither. NothingSaid, NotOpen, UnknownLabelTask; StoreError where several begin so.
        """
        _require_words(action, correction, document)
        task = self._labels.get(task_id)
        if task is None:
            raise UnknownLabelTask(f"no label task {task_id}; the label queue has the ids of the open ones")
        if task.other_id is not None or action not in LABEL_STATES:
            return self._compare(task, principal, action)
        said = None
        if action not in WORDLESS:
            said = self._feedback(
                task.interaction_id,
                principal,
                FeedbackSource.LABEL,
                rating=RATINGS.get(action),
                correction=correction,
                document=document,
                is_excluded=action == "exclude",
            )
        return self._labels.resolve(task.id, LABEL_STATES[action], self._clock(), said)

    def compare(self, first_id: str, second_id: str, principal: str, choice: Choice) -> Comparison:
        """Which of two answers to one question is better. UnknownInteraction, NotComparable."""
        said = self._comparison(first_id, second_id, principal, FeedbackSource.FEEDBACK, choice)
        self._comparisons.add(said)
        task = self._labels.for_interaction(first_id)
        if task is not None and {task.interaction_id, task.other_id} == {first_id, second_id}:
            self._settle(first_id, LabelState.COMPARED)
        return said

    def _compare(self, task: LabelTask, principal: str, action: str) -> LabelTask:
        """Resolve a question about two answers."""
        if task.other_id is None or action not in (*CHOICES, "skip"):
            about = "one answer" if task.other_id is None else "two answers"
            raise NothingSaid(f"action {action!r} does not settle a question about {about}")
        if action == "skip":
            return self._labels.resolve(task.id, LabelState.SKIPPED, self._clock())
        said = self._comparison(task.interaction_id, task.other_id, principal, FeedbackSource.LABEL, Choice(action))
        return self._labels.resolve(task.id, LabelState.COMPARED, self._clock(), said)

    def _comparison(
        self, first_id: str, second_id: str, principal: str, source: FeedbackSource, choice: Choice
    ) -> Comparison:
        return Comparison(uuid.uuid4().hex, first_id, second_id, self._clock(), principal, source, choice)

    def answer_of(self, interaction_id: str) -> Interaction | None:
        """One answer that was given."""
        return self._interactions.get(interaction_id)

    def open_questions(self, limit: int) -> list[tuple[LabelTask, Interaction]]:
        """What people are asked now, most worthwhile first."""
        pairs = [(task, self._interactions.get(task.interaction_id)) for task in self._labels.open_tasks(limit)]
        return [(task, interaction) for task, interaction in pairs if interaction is not None]

    def documents(self) -> list[dict[str, Any]]:
        """What people named as settling a question, the most often named first, with all that it is to settle."""
        settles: dict[str, list[str]] = {}
        for document, id_ in self._interactions.documents():
            interaction = self._interactions.get(id_)
            if interaction is not None:
                settles.setdefault(document, []).append(interaction.question)
        by_number = sorted(settles.items(), key=lambda named: -len(named[1]))
        return [{"document": document, "questions": questions} for document, questions in by_number]

    def _settle(self, interaction_id: str, state: LabelState | None) -> None:
        """A question that feedback has answered needs no asking."""
        task = self._labels.for_interaction(interaction_id)
        if state is not None and task is not None and task.state is LabelState.OPEN:
            with suppress(NotOpen):  # somebody else was quicker; both words are kept
                self._labels.resolve(task.id, state, self._clock())

    def _feedback(
        self,
        interaction_id: str,
        principal: str,
        source: FeedbackSource,
        *,
        rating: Rating | None,
        correction: str | None,
        comment: str | None = None,
        document: str | None = None,
        is_excluded: bool = False,
    ) -> Feedback:
        return Feedback(
            uuid.uuid4().hex,
            interaction_id,
            self._clock(),
            principal,
            source,
            rating,
            (correction or "").strip() or None,
            comment or None,
            is_excluded,
            (document or "").strip() or None,
        )


def _settled_by(feedback: Feedback) -> LabelState | None:
    """What a word given unasked makes of a question about it. A thumb down leaves open what would be right."""
    if feedback.correction:
        return LabelState.ANSWERED
    if feedback.document:
        return LabelState.DOCUMENTED
    return LabelState.RIGHT if feedback.rating is Rating.UP else None


def _require_words(action: str, correction: str | None, document: str | None) -> None:
    if (action == "answer") != bool((correction or "").strip()):
        raise NothingSaid(f"action {action!r} {'needs' if action == 'answer' else 'takes no'} correction")
    has_document = bool((document or "").strip())
    if has_document and action not in ("answer", "document"):
        raise NothingSaid(f"action {action!r} takes no document")
    if action == "document" and not has_document:
        raise NothingSaid("action 'document' needs a document: its title, path or address")
