"""How sure a checkpoint's uncertainty may be taken: people's judgements of its answers, and what follows from them."""

from dataclasses import dataclass
from threading import Lock

from agent.certainty import Calibration, Judged, Report, calibrate, report
from store.interactions import Interactions


@dataclass(frozen=True, slots=True)
class _Known:
    num_feedback: int
    calibration: Calibration | None
    report: Report | None


class Certainty:
    """Works it out again when somebody has said something since. Thread-safe."""

    def __init__(self, interactions: Interactions) -> None:
        self._interactions = interactions
        self._known: dict[str, _Known] = {}
        self._lock = Lock()

    def report(self, checkpoint_id: str) -> Report | None:
        """None while too few of this checkpoint's answers were judged."""
        return self._of(checkpoint_id).report

    def probability_wrong(self, checkpoint_id: str, uncertainty: float | None) -> float | None:
        """Of an answer of this checkpoint; None while that cannot be told."""
        calibration = self._of(checkpoint_id).calibration
        return None if calibration is None or uncertainty is None else calibration.probability(uncertainty)

    def _of(self, checkpoint_id: str) -> _Known:
        with self._lock:
            num_feedback = self._interactions.count_feedback()
            known = self._known.get(checkpoint_id)
            if known is None or known.num_feedback != num_feedback:
                judged = [Judged(*row) for row in self._interactions.judged(checkpoint_id)]
                known = self._known[checkpoint_id] = _Known(num_feedback, calibrate(judged), report(judged))
            return known
