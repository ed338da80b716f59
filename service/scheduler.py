"""The timer table: name, interval, function. APScheduler keeps time; what a timer does is its function's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler

log = structlog.get_logger()

MISFIRE_GRACE_SECONDS = 60  # APScheduler's default of one second drops late jobs with only a log line


@dataclass(frozen=True, slots=True)
class Timer:
    """A function that runs every so often, never twice at once."""

    name: str
    interval_seconds: float
    run: Callable[[], object]
    is_immediate: bool = False


class Scheduler:
    """Runs timers on threads until `stop`."""

    def __init__(self, timers: Sequence[Timer]) -> None:
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._scheduler.add_listener(self._tell, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        for timer in timers:
            first = {"next_run_time": datetime.now(UTC)} if timer.is_immediate else {}
            self._scheduler.add_job(
                timer.run,
                "interval",
                seconds=timer.interval_seconds,
                id=timer.name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=MISFIRE_GRACE_SECONDS,
                **first,
            )

    @property
    def is_running(self) -> bool:
        return bool(self._scheduler.running)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=True)

    def _tell(self, event: JobExecutionEvent) -> None:
        if event.exception is None:
            log.warning("timer.missed", timer=event.job_id)
        else:
            log.error("timer.failed", timer=event.job_id, error=str(event.exception), trace=event.traceback)
