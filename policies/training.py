"""Whether a training run may start. Measuring disk and counting rows is left to the caller."""

from dataclasses import dataclass
from typing import Any

from policies.engine import PolicySet, Ruling, principal_of

DEFAULT_MIN_ROWS = 3


@dataclass(frozen=True, slots=True)
class TrainFacts:
    """What is known when a run is asked for."""

    trigger: str  # "operator:NAME", "schedule", … as in TrainingRun.trigger
    new_rows: int  # admitted rows that no finished run has seen
    is_run_active: bool
    disk_free: int | None  # bytes; None when it could not be measured
    disk_needed: int | None
    is_quiet: bool  # within the quiet hours, or none are set
    is_frozen: bool = False
    min_rows: int = DEFAULT_MIN_ROWS

    def context(self) -> dict[str, Any]:
        context = {
            "new_rows": self.new_rows,
            "min_rows": self.min_rows,
            "is_run_active": self.is_run_active,
            "is_quiet": self.is_quiet,
            "is_frozen": self.is_frozen,
        }
        disk = {"disk_free": self.disk_free, "disk_needed": self.disk_needed}
        return context | {name: size for name, size in disk.items() if size is not None}


def may_train(facts: TrainFacts, policy_set: PolicySet) -> Ruling:
    return policy_set.decide("train", principal_of(facts.trigger), ("Run", "next"), facts.context())
