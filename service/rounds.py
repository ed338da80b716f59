"""What the daemon does by itself, again and again: bring runs forward, score, think of training, look after the engine.

Each round is one method; when it comes is the scheduler's affair.
"""

import time
from collections.abc import Callable
from datetime import datetime

import structlog

from service import notify
from service.config import Settings, is_within
from service.cycle import Cycle, NotStarted
from service.health import Health
from service.questions import Questions
from service.rollout import Rollout
from service.scheduler import Timer
from service.scoring import Scoring
from service.stores import Stores

log = structlog.get_logger()

ADVANCE_SECONDS = 1.0
HEALTH_SECONDS = 5.0
SCORE_PATIENCE_SECONDS = 60.0
ASK_AGAIN_SECONDS = 3600.0


class Rounds:
    """`scoring` is called when there is first something to score: to build it loads the embedder."""

    def __init__(
        self,
        *,
        settings: Settings,
        stores: Stores,
        rollout: Rollout,
        cycle: Cycle,
        health: Health,
        scoring: Callable[[], Scoring],
        questions: Callable[[], Questions],
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._rollout = rollout
        self._cycle = cycle
        self._health = health
        self._scoring = scoring
        self._questions = questions
        self._is_pool_new = True  # whether choosing could find anything to ask
        self._num_swaps = rollout.serving.num_swaps  # when the last choice was made: another model has other doubts
        self._scored_at = self._chosen_at = time.monotonic()

    def timers(self) -> list[Timer]:
        timers = [
            Timer("advance", ADVANCE_SECONDS, self.advance, is_immediate=True),
            Timer("score", self._settings.score_interval_seconds, self.score),
            Timer("ask", self._settings.ask_interval_seconds, self.ask),
            Timer("train", self._settings.train_interval_seconds, self.consider_training),
            Timer("health", HEALTH_SECONDS, self.look_after),
        ]
        interval = notify.watchdog_interval()
        return [*timers, Timer("watchdog", interval, self.ping, is_immediate=True)] if interval else timers

    def advance(self) -> None:
        """Bring runs forward, and share the cores: a step's threads wait for each other, so one that a training process
        keeps from its core holds up all.
        """
        self._cycle.advance()
        is_learning = bool(self._stores.runs.unfinished())
        s = self._settings
        self._rollout.serving.use_threads(min(s.threads, s.threads_beside_training) if is_learning else s.threads)

    def score(self) -> None:
        """New interactions get their scores while nobody is being answered, or at last after a while."""
        now = time.monotonic()
        if self._rollout.serving.num_active() and now - self._scored_at < SCORE_PATIENCE_SECONDS:
            return
        self._scored_at = now
        if self._stores.interactions.unscored(1):
            self._is_pool_new |= self._scoring().score_new() > 0

    def ask(self) -> None:
        """Choose questions among all answers never asked about, unless the last time found none and nothing is new:
        neither an answer nor the model whose doubts count, nor, after an hour, how much people may be asked.
        """
        num_swaps, now = self._rollout.serving.num_swaps, time.monotonic()
        if not self._is_pool_new and num_swaps == self._num_swaps and now - self._chosen_at < ASK_AGAIN_SECONDS:
            return
        if self._questions().num_left() < 1:
            return
        self._is_pool_new, self._chosen_at = False, now  # scoring may find something new meanwhile
        try:
            num_asked = self._questions().ask()
        except BaseException:
            self._is_pool_new = True
            raise
        self._is_pool_new |= num_asked > 0 or self._questions().has_looked_closer
        self._num_swaps = num_swaps
        log.info("questions.chosen", num_asked=num_asked)

    def consider_training(self) -> None:
        is_quiet = is_within(datetime.now().astimezone().time(), self._settings.quiet_hours)
        if not self._cycle.num_new(self._cycle.recipe):
            return
        try:
            self._cycle.start("schedule", is_quiet=is_quiet, recipe=self._cycle.recipe)
        except NotStarted as error:
            log.info("run.not_started", reason=str(error))

    def look_after(self) -> None:
        """Rebuild an engine whose worker died; else keep proof that it answers."""
        fault = self._rollout.serving.fault()
        if fault:
            log.error("engine.died", fault=fault)
            self._rollout.rebuild()
        else:
            self._health.probe()

    def ping(self) -> None:
        """Tell systemd that it answers."""
        if self._health.problem() is None:
            notify.watchdog()
