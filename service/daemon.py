"""The one place that wires the program: builds every part, starts and stops them in order, and waits for a signal."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

import structlog
import uvloop
from fastapi import FastAPI

from agent.curation.texts import too_long
from agent.dataset import DatasetSettings
from agent.doubts import doubts
from agent.recipe import Recipe
from policies.engine import PolicySet, shipped
from service import models, notify
from service.access import Access
from service.api.app import operator_app, public_app
from service.api.operator import OperatorParts
from service.api.parts import Parts
from service.certainty import Certainty
from service.clusters import Clusters
from service.config import Settings
from service.cycle import Cycle
from service.decisions import Decisions
from service.evaluations import Evaluations
from service.health import Health
from service.loading import LoadedEmbedder, child_settings, computed_on, model_loader
from service.lock import StateLock
from service.metrics import Metrics
from service.nearby import Nearby
from service.once import Once
from service.placing import Placing
from service.questions import Questions, questions
from service.reasking import Reasking
from service.review import Reviews
from service.rollout import Rollout
from service.rounds import Rounds
from service.scheduler import Scheduler
from service.scoring import Scoring
from service.snapshots import ChildSettings, Snapshots
from service.sockets import host_of, listen_tcp, listen_unix, make_server
from service.status import Status
from service.stores import open_stores, require_pin
from service.supervisor import Supervisor
from service.teaching import Teaching
from service.trust import Trust
from service.turns import Turns
from store.vectors import VectorIndex

log = structlog.get_logger()

Announce = Callable[[str, str, str], None]  # address, model name, state directory

SWITCH_SECONDS = 0.001  # how long another thread may keep Python's lock from the engine


class Daemon:
    """All parts of a running honed. `run` blocks until a signal."""

    def __init__(self, settings: Settings, announce: Announce = lambda *_: None) -> None:
        self.settings = settings
        self._announce = announce
        self.paths = settings.paths
        self.started_at = time.time()
        self.paths.create()
        self.lock = StateLock(self.paths.lock)
        self.lock.acquire()
        self.base = models.ensure(settings.model, self.paths.models)
        self.embedder = models.ensure(settings.embedder, self.paths.models)
        self.stores = open_stores(settings)
        require_pin(self.stores, settings.model, self.base.id)
        self.policy_set: PolicySet = shipped()
        self.scoring, self.questions = Once(self._new_scoring), Once(self._new_questions)  # they load the index
        self.sentence_embedder = LoadedEmbedder(self.embedder)
        self.loader = model_loader(settings, self.base, self.sentence_embedder)
        self.rollout = self._rollout()
        self.health = Health(self.rollout.serving, self.loader.tokenizer, ready_seconds=settings.ready_seconds)
        self.certainty = Certainty(self.stores.interactions)
        self.teaching = Teaching(self.stores.interactions, self.stores.labels, self.stores.comparisons)
        child = child_settings(settings, self.base, self.embedder)
        self.snapshots = self._snapshots(child)
        nearby = Nearby(self.stores.interactions, lambda: self.scoring().index)
        self.evaluations = Evaluations(
            nearby=nearby.found, paths=self.paths, child=child, computed_on=computed_on(self.loader)
        )
        self.cycle = self._cycle()
        self.decisions = Decisions(
            registry=self.stores.registry,
            rollout=self.rollout,
            policy_set=self.policy_set,
            base_id=self.base.id,
            approvals_required=settings.approvals_required,
        )
        on = {"device": str(self.loader.device), "weights": self.loader.weights}
        self.metrics = Metrics(self.rollout.serving, self.model_name, **on)
        self.access = Access(self.stores.api_keys)
        self.rounds = Rounds(
            settings=settings,
            stores=self.stores,
            rollout=self.rollout,
            cycle=self.cycle,
            health=self.health,
            scoring=self.scoring,
            questions=self.questions,
        )
        self.scheduler = Scheduler(self.rounds.timers())

    @property
    def model_name(self) -> str:
        return self.settings.model_name or self.base.name

    # ── building ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _rollout(self) -> Rollout:
        trust = Trust(
            self.stores.registry,
            self.paths,
            base_id=self.base.id,
            approvals_required=self.settings.approvals_required,
        )
        return Rollout(
            registry=self.stores.registry,
            trust=trust,
            loader=self.loader,
            policy_set=self.policy_set,
            drain_seconds=self.settings.drain_seconds,
        )

    def _snapshots(self, child: ChildSettings) -> Snapshots:
        s = self.settings
        return Snapshots(
            interactions=self.stores.interactions,
            comparisons=self.stores.comparisons,
            policy_set=self.policy_set,
            paths=self.paths,
            child=child,
            settings=DatasetSettings(holdout_share=s.holdout_share, max_per_person=s.learn_per_person),
            scope=partial(self.sentence_embedder.scope, s.scope_nearness) if s.scope == "near" else None,
            first=[too_long(self.loader.tokenizer, Recipe().max_length)],
        )

    def _cycle(self) -> Cycle:
        return Cycle(
            runs=self.stores.runs,
            registry=self.stores.registry,
            snapshots=self.snapshots,
            evaluations=self.evaluations,
            supervisor=Supervisor(nice=self.settings.train_nice),
            policy_set=self.policy_set,
            paths=self.paths,
            base_id=self.base.id,
            recipe=Recipe(method=self.settings.train_method),
            min_labels=self.settings.train_min_labels,
            timeout_seconds=self.settings.train_timeout_seconds,
        )

    def _new_scoring(self) -> Scoring:
        embedder = self.sentence_embedder()
        return Scoring(
            interactions=self.stores.interactions,
            pool=self.stores.pool,
            index=VectorIndex(self.paths.vectors, embedder.dim),
            embedder=embedder,
            signal_name=self.settings.uncertainty_signal,
        )

    def _new_questions(self) -> Questions:
        told = doubts(self.settings.uncertainty_signal, self.settings.sampled_signal, self.sentence_embedder)
        return questions(
            self.settings,
            self.stores,
            index=self.scoring().index,
            certainty=self.certainty,
            reasking=Reasking(self.rollout.serving, self.loader.tokenizer, told),
            policy_set=self.policy_set,
        )

    def apps(self, address: str) -> tuple[FastAPI, FastAPI]:
        """The public and the operator's application over these parts."""
        turns = Turns(
            self.rollout.serving,
            self.stores.interactions,
            self.metrics,
            Placing(
                self.sentence_embedder,
                self.metrics,
                max_waiting=self.settings.max_batch + self.settings.max_waiting,  # what engines could take at once
            ),
            answer_seconds=self.settings.answer_seconds,
        )
        parts = Parts(
            self.settings,
            self.model_name,
            self.started_at,
            self.loader,
            self.rollout.serving,
            turns,
            self.teaching,
            self.health,
            self.metrics,
            self.sentence_embedder,
        )
        access = self.access if self.settings.needs_keys else None
        return public_app(parts, access), operator_app(parts, self._operator_parts(address))

    def _operator_parts(self, address: str) -> OperatorParts:
        stores = self.stores
        status = Status(
            registry=stores.registry,
            interactions=stores.interactions,
            labels=stores.labels,
            runs=stores.runs,
            loader=self.loader,
            rollout=self.rollout,
            cycle=self.cycle,
            health=self.health,
            certainty=self.certainty,
            address=address,
            model_name=self.model_name,
            started_at=self.started_at,
        )
        reviews = Reviews(
            registry=stores.registry,
            runs=stores.runs,
            evaluations=self.evaluations,
            paths=self.paths,
            policy_set=self.policy_set,
            base_id=self.base.id,
            approvals_required=self.settings.approvals_required,
        )
        return OperatorParts(
            status,
            self.teaching,
            self.cycle,
            stores.runs,
            reviews,
            self.decisions,
            self.rollout,
            self.snapshots,
            Clusters(stores.interactions, stores.pool),
            self.certainty,
            self.access,
            self.paths,
            self.settings.quiet_hours,
        )

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and close everything in the reverse order."""
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what is loaded by now stays: a full collection would stop every answer for a tenth of a second
        try:
            uvloop.run(self._serve())
        finally:
            self.close()

    async def _serve(self) -> None:
        tcp = listen_tcp(self.settings.host, self.settings.port)
        address = f"http://{host_of(tcp)}:{tcp.getsockname()[1]}"
        unix = listen_unix(self.paths.socket)
        public, operator = self.apps(address)
        servers = [(make_server(public, self.settings), tcp), (make_server(operator, self.settings), unix)]
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        tasks = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in servers]
        self.scheduler.start()
        notify.ready(f"{address} {self.rollout.serving.current.checkpoint_id[:12]}")
        if self.loader.slow_because:
            log.warning("engine.slow", reason=self.loader.slow_because)
        log.info("daemon.started", address=address, checkpoint=self.rollout.serving.current.checkpoint_id)
        self._announce(address, self.model_name, str(self.paths.state))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        notify.stopping()
        log.info("daemon.stopping")
        stopped.cancel()
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)

    def close(self) -> None:
        """Children, engine, databases, socket, lock. Safe to call once, after `run` or instead of it."""
        if self.scheduler.is_running:
            self.scheduler.stop()
        self.cycle.stop_children()
        self.rollout.close()
        self.stores.close()
        self.paths.socket.unlink(missing_ok=True)
        self.lock.release()
        log.info("daemon.stopped")
