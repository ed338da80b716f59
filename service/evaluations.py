"""What an evaluation asks: every repair that stood, its other wordings, what was held out, what must stay, and what
people preferred.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from agent import suites
from agent.checkpoint import scope_in
from agent.dataset import is_judged, reworded_items
from agent.lesson_rows import Row, plain
from agent.results import NEARBY
from agent.rundir import EVALUATE_INPUT, JUDGED, REPAIRS, WEIGHED, RunDirectory, assembled
from agent.scope import Scope
from agent.scoring import answer_key
from service.answer_cache import AnswerCache
from service.paths import Paths
from service.snapshots import ChildSettings
from store.audit import digest
from store.records import Interaction, TrainingRun

EVALUATION_TOKENS = 48


class Evaluations:
    """Builds the directories that evaluations read, and keeps what the base said in them."""

    def __init__(
        self,
        *,
        nearby: Callable[[Scope, set[str]], list[Interaction]],
        paths: Paths,
        child: ChildSettings,
        computed_on: str,
    ) -> None:
        """`nearby` finds what was asked near a scope and is none of these texts. What the base said is kept by
        `computed_on`, the device and precision: another may say otherwise.
        """
        self._nearby = nearby
        self._paths = paths
        self._child = child
        self._base_answers = AnswerCache(
            paths.cache / f"served-{child.base.id}-{computed_on}-{EVALUATION_TOKENS}.jsonl"
        )
        self._weighed = paths.cache / f"weighed-{child.base.id}-{computed_on}.json"

    def directory(self, run_id: str) -> Path:
        return self._paths.run(run_id) / "evaluation"

    def prepare(self, run: TrainingRun, candidate_id: str, champion_id: str) -> None:
        """Write the evaluation directory inside the run's."""
        is_base = champion_id == self._child.base.id
        learnt = [row for row in self._run(run).rows("train.jsonl") if row["kind"] != "replay"]
        job = {
            "candidate_adapter": str(self._paths.checkpoint(candidate_id)),
            "champion_adapter": None if is_base else str(self._paths.checkpoint(champion_id)),
            "max_tokens": EVALUATION_TOKENS,
            "num_train": len(learnt),
            "num_judged": sum(is_judged(row) for row in learnt),
            "weighed": str(self._weighed) if self._weighed.exists() else None,
            **self._child.to_json(),
        }
        with assembled(self.directory(run.id)) as evaluation:
            evaluation.write_rows("items.jsonl", self._items(run))
            evaluation.write_rows("flattery.jsonl", suites.load("flattery"))
            evaluation.write_rows(JUDGED, self._run(run).rows(JUDGED))
            evaluation.write(EVALUATE_INPUT, job)

    def is_of(self, run_id: str, candidate_id: str) -> bool:
        """Whether the run's evaluation directory measures this candidate: a second chance takes its place."""
        try:
            job = RunDirectory(self.directory(run_id)).read(EVALUATE_INPUT)
        except FileNotFoundError:
            return False
        return Path(job["candidate_adapter"]).name == self._paths.checkpoint(candidate_id).name

    def keep_base_answers(self, run: TrainingRun) -> None:
        """The base says the same next time; it need not be asked."""
        self._base_answers.keep(RunDirectory(self.directory(run.id)).rows("base_answers.jsonl"))
        made = self.directory(run.id) / WEIGHED
        if made.exists():
            made.replace(self._weighed)

    def _items(self, run: TrainingRun) -> list[Row]:
        holdout = [
            {"messages": row["messages"], "expected": row["answer"], "keys": [list(_key(row))]}
            for row in self._run(run).rows("holdout.jsonl")
        ]
        held = {digest(row["messages"]) for row in holdout}
        # As it stood when the run was cut: what was said since cannot have been learnt.
        repairs = [item for item in self._run(run).rows(REPAIRS) if digest(item["messages"]) not in held]
        retention = [
            {
                "messages": [{"role": "user", "content": item["question"]}],
                "keys": item["keys"],
                "expected": " / ".join(map(" ".join, item["keys"])),
            }
            for item in suites.load("retention")
        ]
        nearby = [
            {"messages": plain(interaction.messages), "expected": "", "keys": []}
            for interaction in self._near(run, [str(item["messages"][-1]["content"]) for item in (*repairs, *holdout)])
        ]
        by_suite = {"asked": repairs, "paraphrase": reworded_items(repairs), "holdout": holdout, "retention": retention}
        by_suite[NEARBY] = nearby
        known = self._base_answers.known()
        return [
            {**item, "suite": suite, "base_answer": known.get(digest(item["messages"]))}
            for suite, items in by_suite.items()
            for item in items
        ]

    def _near(self, run: TrainingRun, known: Sequence[str]) -> list[Interaction]:
        """Nothing where the candidate is to answer everywhere: then the other suites tell what it changes."""
        scope = scope_in(self._run(run).path)
        return self._nearby(scope, set(known)) if scope else []

    def _run(self, run: TrainingRun) -> RunDirectory:
        return RunDirectory(self._paths.run(run.id))


def _key(row: Row) -> tuple[str, ...]:
    return answer_key(str(row["messages"][-1]["content"]), str(row["answer"]))
