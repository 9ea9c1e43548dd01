"""One turn of the loop: outcomes → skill and drift → diagnosis → decisions → retraining, rollout, adaptation.

The same code runs live and in simulations; what differs is handed in (`Parts`). A turn

1. settles retrainings that ended, and starts the next;
2. resolves outcomes, which are committed first;
3. feeds them, bar by bar and in order, to every watch;
4. diagnoses, lets the triggers fire, decides, and lets the rollout decide;
5. writes decisions, jobs, performance, adaptation and its own memory in one transaction;
6. flags the champion while its skill alarm stands, and carries out in the registry what was decided about models, where
   a person's act wins.

Nothing is lost by a crash between any two of these: outcomes after the memory are fed again, and what was written or
done once is told by its key and left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from tradeloop.bundle import Bundle
from tradeloop.clock import Clock
from tradeloop.config import Params
from tradeloop.errors import BundleError, RegistryError
from tradeloop.lifecycle import Lifecycle
from tradeloop.loop.actions import Action, Done
from tradeloop.loop.checkpoints import Checkpoints
from tradeloop.loop.decision_log import Decision, write
from tradeloop.loop.decisions import Decider
from tradeloop.loop.followed import Followed
from tradeloop.loop.retrain import Retraining, Trainer, TrainingResult
from tradeloop.loop.rollout import Rollout
from tradeloop.loop.trial import Standing
from tradeloop.loop.triggers import check_all, open_triggers
from tradeloop.loop.watch import ChampionWatch
from tradeloop.monitoring.diagnosis import Diagnosis, diagnose
from tradeloop.monitoring.evidence import Champion, Evidence, LastTraining
from tradeloop.monitoring.feed import BarFeed
from tradeloop.monitoring.outcomes import Resolver
from tradeloop.monitoring.records import Logged, Resolved
from tradeloop.monitoring.staleness import Staleness, closes_between
from tradeloop.predictor import Prediction
from tradeloop.promotion import promotion_evidence
from tradeloop.registry import Registry
from tradeloop.schema import Schema
from tradeloop.state.database import Database
from tradeloop.state.job import Job
from tradeloop.state.jobs import JobQueue

REMEMBER_EVERY = 200
"""Outcomes between two memories on quiet turns; a turn that decides something always writes one."""


@dataclass(frozen=True)
class Parts:
    """What a loop works on.

    Attributes
    ----------
    bundle_of
        Returns the verified bundle of a hash, or raises BundleError.
    evidence_beside
        Returns what is known beside predictions and outcomes, by field of `Evidence`: integrity, requests.
    admissible
        Returns the bundle, or raises SchemaMismatch where the online store does not hold its features.
    feature_times
        Returns the time of a symbol's newest feature row that can be served; by default that of its newest prediction.
    late
        Returns the components that have been silent for too long, and for how many seconds.
    guard
        Called in the transaction that writes a turn; raises StoreError where this process may not act any more.
    fault
        Takes kind and message of what failed and is not raised.
    """

    database: Database
    params: Params
    clock: Clock
    feed: BarFeed
    registry: Registry
    trainer: Trainer
    bundle_of: Callable[[str], Bundle]
    evidence_beside: Callable[[], dict[str, Any]] = dict
    admissible: Callable[[Bundle], Bundle] = lambda bundle: bundle
    feature_times: Callable[[str], datetime | None] | None = None
    late: Callable[[], dict[str, float]] = dict
    guard: Callable[[Connection], None] = lambda _: None
    fault: Callable[[str, str], None] = lambda *_: None


@dataclass(frozen=True)
class Turn:
    """What a turn brought.

    Attributes
    ----------
    trained
        Attempts that ended, each with its job.
    queued
        Retrainings that were asked for.
    """

    now: datetime
    resolved: int
    diagnosis: Diagnosis
    evidence: Evidence
    decisions: list[Decision] = field(default_factory=list)
    queued: list[Job] = field(default_factory=list)
    trained: list[tuple[Job, TrainingResult]] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)


class Loop:
    """The loop of one market; one process at a time runs it.

    Making one takes up the memory of the last, and feeds again what came after it.
    """

    def __init__(self, parts: Parts) -> None:
        params, database = parts.params, parts.database
        self._parts = parts
        self._params = params
        self._resolver = Resolver(
            database,
            params.market,
            labels=params.labels,
            feed=parts.feed,
            clock=parts.clock,
            config=params.outcomes,
        )
        self._queue = JobQueue(database, params.market, concurrent=params.retrain.concurrent)
        self._retraining = Retraining(
            self._queue, parts.trainer, params.retrain, calendar=params.active.calendar, fault=parts.fault
        )
        self._rollout = Rollout(
            parts.registry,
            params.rollout,
            standing_of=lambda model: Standing.of(parts.bundle_of(model)),
            check=lambda model: promotion_evidence(parts.admissible(parts.bundle_of(model))),
            horizon=params.labels.horizon,
        )
        self._decider = Decider(params)
        self._triggers = open_triggers(params)
        self._staleness = Staleness(params.active, params.drift)
        self._followed = Followed(database, params, parts.bundle_of)
        self._checkpoints = Checkpoints(database, params.market)
        self._lifecycle = Lifecycle()
        self._news = -1
        self._last_training: LastTraining | None = None
        self._seq = self._remembered = 0
        self._restore()

    def turn(self, fresh: Sequence[Prediction] = ()) -> Turn:
        """Run one turn at the market's present.

        Parameters
        ----------
        fresh
            Predictions that were just logged, if the caller has them: they need not be read.

        Raises
        ------
        StoreError
            The database does not answer. Make a new `Loop` once it does: it goes on from its memory.
        """
        now = self._parts.clock.now()
        self._followed.note(fresh)
        self._resolver.note(logged(one) for one in fresh if one.id is not None)
        trained = self._retraining.step(now)
        for job, result in trained:
            self._admit(job, result, now)
        resolved = self._resolver.advance()
        self._look()
        self._feed(resolved)
        self._followed.restated(self._resolver.restated)
        self._followed.look_at_costs(now)
        evidence = self._evidence(now)
        diagnosis = diagnose(evidence, self._params)
        firings = check_all(self._triggers, evidence)
        decisions = self._decider.decide(evidence, diagnosis, firings, history=self._queue.jobs)
        alarm = evidence.skill_alarm
        self._rollout.market_changed(alarm.changed_at if alarm else None)
        actions = self._rollout.advance(now)
        queued = self._write(decisions, actions)
        self._flag(evidence)
        done = [self._rollout.execute(action) for action in actions]
        for decision in decisions:
            if decision.supersedes is not None:
                self._queue.cancel(decision.supersedes, actor="loop", reason=f"superseded: {decision.reason}")
        return Turn(now, len(resolved), diagnosis, evidence, decisions, queued, trained, done)

    @property
    def watch(self) -> ChampionWatch | None:
        """The champion's watch."""
        return self._followed.watch

    def rollout(self) -> dict[str, Any]:
        """Return every comparison that runs."""
        return self._rollout.evidence()

    def schemas(self) -> list[Schema]:
        """Return the feature schemas of the champion and of every challenger that can be read."""
        found: dict[str, Schema] = {}
        models = [record.hash for record in (self._lifecycle.champion,) if record]
        for model in (*models, *(route.model for route in self._lifecycle.routes)):
            try:
                schema = self._parts.bundle_of(model).schema
            except BundleError:
                continue
            found[schema.hash] = schema
        return list(found.values())

    def close(self) -> None:
        """Stop what trains, and give the jobs back to the queue; nothing is lost."""
        self._retraining.close(self._parts.clock.now())

    def _restore(self) -> None:
        """Take up the last memory, then feed the outcomes that came after it."""
        memory = self._checkpoints.read()
        self._look()
        if "loop" in memory:
            self._seq = memory["loop"].outcome_seq
            self._decider.restore(memory["decisions"].content)
            self._rollout.restore(memory["rollout"].content)
            self._followed.restore(memory["followed"].content, self._resolver.replay)
        self._remembered = self._seq
        self._feed(list(self._resolver.replay(self._seq)))

    def _look(self) -> None:
        """Read the registry if it has news, and follow another champion if there is one."""
        news = self._parts.registry.champion_version()
        if news == self._news:
            return
        self._lifecycle, self._news = self._parts.registry.state(), news
        champion = self._lifecycle.champion
        self._followed.champion(champion.hash if champion else None)

    def _feed(self, resolved: Sequence[Resolved]) -> None:
        """Feed outcomes in order, those of one feature time together."""
        first = 0
        for last in range(1, len(resolved) + 1):
            end = last == len(resolved)
            if end or resolved[last].prediction.feature_time != resolved[first].prediction.feature_time:
                batch = resolved[first:last]
                self._followed.update(batch)
                self._rollout.observe(batch)
                first = last
        if resolved:
            self._seq = resolved[-1].seq

    def _admit(self, job: Job, result: TrainingResult, now: datetime) -> None:
        self._last_training = None
        if result.state == "succeeded" and result.attempt.verdict == "pass" and result.attempt.model:
            reason = f"trained by {job.trigger}: {job.reason}"
            self._rollout.admit(result.attempt.model, now=now, reason=reason[:2000], evidence={"job": job.id})

    def _evidence(self, now: datetime) -> Evidence:
        champion = self._lifecycle.champion
        train_end = self._followed.train_end
        told = None
        if champion is not None:
            promoted = champion.promoted_in_market or champion.promoted_at or now
            told = Champion(champion.hash, champion.version, promoted, train_end)
        line = self._lifecycle.line
        served = self._parts.feature_times or self._followed.newest
        newest = {symbol: served(symbol) for symbol in self._params.active.symbols}
        bars = {symbol: self._closed(symbol) for symbol in newest}
        return Evidence(
            now=now,
            outcome_seq=self._seq,
            champion=told,
            predecessor=line[-2] if len(line) > 1 else None,
            skill=self._followed.skill(),
            calibration=self._followed.calibration(),
            drift=self._followed.drift(),
            staleness=self._staleness.evidence(now, bars=bars, features=newest, train_end=train_end)
            | ({"late_components": late} if (late := self._parts.late()) else {}),
            regime=self._followed.regime,
            new_bars=0 if train_end is None else closes_between(self._params.active, train_end, now),
            last_training=self._trained(),
            watch=self._rollout.watch,
            costs=self._followed.costs(),
            **self._parts.evidence_beside(),
        )

    def _flag(self, evidence: Evidence) -> None:
        """Flag the champion as degraded for as long as its skill alarm stands; a later turn does what a crash left."""
        champion, alarm = self._lifecycle.champion, evidence.skill_alarm
        if champion is None or self._followed.watch is None or (champion.state == "degraded") == (alarm is not None):
            return
        registry = self._parts.registry
        try:
            if alarm is not None:
                told = evidence.skill.get("details")
                registry.degrade(champion.hash, actor="loop", reason=alarm.text, evidence=told)
            else:
                registry.recover(champion.hash, actor="loop", reason="no skill alarm stands: its watch began anew")
        except RegistryError:  # somebody has made another one champion since
            return

    def _closed(self, symbol: str) -> datetime | None:
        """Return the newest bar's close."""
        return self._followed.closed(symbol, self._parts.feed)

    def _trained(self) -> LastTraining | None:
        """Return the newest job that asked for a training, whatever became of it."""
        if self._last_training is None:
            jobs = self._queue.jobs(1)
            if jobs:
                self._last_training = LastTraining(jobs[0].market_time, jobs[0].state)
        return self._last_training

    def _write(self, decisions: list[Decision], actions: list[Action]) -> list[Job]:
        """Write what was decided, and the memory, in one transaction."""
        news = bool(decisions or actions or self._followed.snapshots or self._rollout.unsaved)
        if not news and self._seq - self._remembered < REMEMBER_EVERY and not self._followed.due():
            return []
        rows = [*decisions, *(action.decision() for action in actions)]
        with self._parts.database.write(f"tradeloop.loop.{self._params.market}") as connection:
            self._parts.guard(connection)
            made = write(connection, rows, queue=self._queue, params=self._params)
            self._followed.write(connection, self._parts.clock.now())
            if news or self._seq - self._remembered >= REMEMBER_EVERY:
                self._remember(connection)
        if made:
            self._last_training = None
        return [job for _, job in made]

    def _remember(self, connection: Connection) -> None:
        states = {
            "loop": {},
            "decisions": self._decider.state(),
            "rollout": self._rollout.state(),
            "followed": self._followed.state(),
        }
        self._checkpoints.write(connection, states, self._seq)
        self._remembered = self._seq


_LOGGED = tuple(Logged.__dataclass_fields__)


def logged(prediction: Prediction) -> Logged:
    """Return a prediction as the log will have it."""
    return Logged(*(getattr(prediction, name) for name in _LOGGED))
