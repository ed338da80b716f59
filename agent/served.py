"""A model that serves, and what of it a question reaches. Knows vectors and engines, not where either comes from."""

from dataclasses import dataclass

from agent.embedding import Vectors
from agent.engine import Engine
from agent.scope import Scope


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """An engine and the checkpoint it answers from: everything, or what is within its bounds."""

    checkpoint_id: str
    engine: Engine
    bounds: "Bounds | None" = None

    @property
    def all(self) -> tuple["ServedModel", ...]:
        """Every model that a question to this one can reach."""
        return (self,) if self.bounds is None else (self, self.bounds.elsewhere)

    def for_question(self, vector: Vectors) -> "ServedModel":
        """Which of them answers a question with this vector (dim,)."""
        if self.bounds is None or self.bounds.scope.covers(vector):
            return self
        return self.bounds.elsewhere


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What a model answers, and who answers everything else."""

    scope: Scope
    elsewhere: ServedModel
