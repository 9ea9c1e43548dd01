"""The loop as a process: one a market, beside the service, for as long as it is wanted.

It holds a lease, so that of two processes only one acts; the other one waits and takes over when the first is gone. It
outlives a database that goes away: nothing of a turn is kept that is not on disk, and a new `Loop` goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from tradeloop.bars import Times
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.clock import Clock, LiveClock, ReplayClock
from tradeloop.config import Params
from tradeloop.errors import DataError, StoreError, TradeloopError
from tradeloop.layout import Layout
from tradeloop.loop.dvc_trainer import DvcTrainer
from tradeloop.loop.refresh import Refresher
from tradeloop.loop.retrain import Trainer
from tradeloop.loop.turn import Loop, Parts, Turn
from tradeloop.monitoring import parity
from tradeloop.monitoring.drift_report import DriftReports
from tradeloop.monitoring.feed import SourceFeed
from tradeloop.monitoring.staleness import Staleness
from tradeloop.promotion import require_schema
from tradeloop.registry import Registry
from tradeloop.schema import Schema
from tradeloop.state.database import Database, database_url
from tradeloop.state.faults import Faults
from tradeloop.state.heartbeats import Heartbeats
from tradeloop.state.leases import Leases, new_owner
from tradeloop.state.online import OnlineStore

log = logging.getLogger(__name__)

COMPONENT = "loop"
LEASE_SECONDS = 60.0
"""A loop that was killed is replaced after this long."""
LONGEST_WAIT = 30.0
_KEPT_BUNDLES = 16


class Runner:
    """Runs one market's loop.

    Parameters
    ----------
    say
        Takes one line for a person for all that happens.
    """

    def __init__(
        self, layout: Layout, params: Params, *, say: Callable[[str], None], trainer: Trainer | None = None
    ) -> None:
        self._layout = layout
        self._params = params
        self._say = say
        self._owner = new_owner()
        self._lease = f"tradeloop.loop.{params.market}"
        self._trainer = trainer or DvcTrainer(layout, params)
        self._store = BundleStore(layout, params)
        self._bundles: dict[str, Bundle] = {}
        self._database: Database | None = None
        self._loop: Loop | None = None
        self._refresher: Refresher | None = None
        self._parity: parity.ParityMonitor | None = None
        self._online: OnlineStore | None = None
        self._served: dict[str, datetime | None] = {}
        self._reports = DriftReports(layout.live / "reports", params.drift)
        self._staleness = Staleness(params.active, params.drift)
        self._troubles = 0
        self._waits = False

    def run(self, stop: threading.Event, *, once: bool = False) -> None:
        """Take turns until `stop` is set.

        Parameters
        ----------
        once
            Take one turn only, and let what goes wrong be raised.
        """
        try:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    self._turn()
                    self._recovered()
                except TradeloopError as error:
                    if once:
                        raise
                    self._trouble(error)
                if once:
                    return
                pause = self._params.loop.every if not self._troubles else min(2.0**self._troubles, LONGEST_WAIT)
                stop.wait(max(0.0, pause - (time.monotonic() - began)))
        finally:
            self._close()

    def _turn(self) -> None:
        if self._database is None:
            self._database = Database.open(database_url(self._layout, self._params))
        leases = Leases(self._database)
        if not leases.acquire(self._lease, self._owner, LEASE_SECONDS):
            self._stand_by(leases)
            return
        if self._loop is None:
            self._waits = False
            self._loop = self._make(self._database)
        if self._refresher is not None:
            for name, problem in self._refresher.refresh(self._loop.schemas()).problems.items():
                self._fault("refresh", f"{name}: {problem}")
        self._served = self._feature_times(self._loop)
        turn = self._loop.turn()
        self._tell(turn)
        self._report(turn)
        self._compare(turn.now)
        detail = f"{turn.diagnosis.cause}: {turn.diagnosis.remedy}"
        Heartbeats(self._database, self._params.market).beat(COMPONENT, "running", detail, turn.now)

    def _make(self, database: Database) -> Loop:
        feed = SourceFeed(self._layout, self._params, LiveClock())
        live = self._params.active.clock == "live"
        clock: Clock = (
            LiveClock() if live else ReplayClock(lambda: _newest(feed.bars(s).timestamp for s in feed.symbols))
        )
        if self._online is None:
            self._online = OnlineStore(self._layout, self._params)
        self._parity = parity.ParityMonitor(self._layout, self._params, feed, database)
        if live and self._refresher is None:
            self._refresher = Refresher(self._layout, self._params, feed, self._online)
        parts = Parts(
            database=database,
            params=self._params,
            clock=clock,
            feed=feed,
            registry=Registry(database, self._params.market, clock=clock),
            trainer=self._trainer,
            bundle_of=self._bundle,
            evidence_beside=lambda: _integrity(feed),
            admissible=self._admissible,
            feature_times=lambda symbol: self._served.get(symbol),
            late=self._late,
            guard=self._still_mine,
            fault=self._record,
        )
        loop = Loop(parts)
        self._say(f"the loop of market {self._params.market} begins")
        return loop

    def _feature_times(self, loop: Loop) -> dict[str, datetime | None]:
        """Return the time of each symbol's newest row in the online store, of the champion's schema."""
        schemas, symbols = loop.schemas(), self._params.active.symbols
        if self._online is None or not schemas:
            return {}
        times = self._online.read(symbols, schemas[0]).feature_time.astype("datetime64[us]").tolist()
        return {name: at and at.replace(tzinfo=UTC) for name, at in zip(symbols, times, strict=True)}

    def _bundle(self, model: str) -> Bundle:
        if model not in self._bundles:
            if len(self._bundles) >= _KEPT_BUNDLES:
                self._bundles.clear()
            self._bundles[model] = self._store.get(model)
        return self._bundles[model]

    def _admissible(self, bundle: Bundle) -> Bundle:
        online = self._online
        assert online is not None
        path = self._layout.store / "schema.json"
        current = Schema.load(path) if path.is_file() else None
        symbols = self._params.active.symbols
        require_schema(bundle, current=current, holds=lambda schema: bool(online.read(symbols, schema).found.any()))
        return bundle

    def _still_mine(self, connection: Connection) -> None:
        assert self._database is not None
        if not Leases(self._database).holds(connection, self._lease, self._owner):
            raise StoreError(f"the lease {self._lease} was lost: another loop may act, this turn wrote nothing")

    def _stand_by(self, leases: Leases) -> None:
        """Wait for another process's loop, which has the lease."""
        self._drop()
        if not self._waits:
            holder = leases.holder(self._lease)
            who = f" by {holder.owner}" if holder else ""
            self._say(f"market {self._params.market} has a loop already, run{who}: this one stands by")
        self._waits = True

    def _tell(self, turn: Turn) -> None:
        if turn.resolved:
            log.info("%d outcomes", turn.resolved)
        for job, result in turn.trained:
            told = result.summary.get("version") or result.error
            self._say(f"retraining {job.id[:8]} ({job.trigger}) {result.state}: {told}")
        for decision in turn.decisions:
            self._say(f"{decision.kind}: {decision.decision}: {decision.reason}")
        for done in turn.done:
            told = f"not done, {done.overridden}" if done.overridden else done.action.reason
            self._say(f"{done.action.kind} {done.action.version}: {told}")

    def _report(self, turn: Turn) -> None:
        """Let the drift report be written when it is due."""
        assert self._loop is not None
        watch = self._loop.watch
        if watch is None:
            return
        attempt = self._reports.step(turn.now, watch.monitor, watch.bundle.reference)
        if attempt is not None and attempt.path is not None:
            self._say(f"drift report: {attempt.path}")
        elif attempt is not None:
            self._fault("drift_report", str(attempt.error))

    def _compare(self, now: datetime) -> None:
        """Compute served rows again when that is due; what differs is an alarm until the next time."""
        assert self._parity is not None and self._database is not None
        try:
            found = self._parity.step(now)
        except DataError as error:
            self._fault(parity.COMPONENT, str(error))
            return
        if found is not None:
            Heartbeats(self._database, self._params.market).beat(parity.COMPONENT, found.state, found.line, found.at)
            if found.different:
                self._fault(parity.COMPONENT, found.line)

    def _fault(self, kind: str, message: str) -> None:
        self._say(f"{kind}: {message}")
        if self._database is not None:
            Faults(self._database, self._params.market).record(COMPONENT, kind, message)

    def _record(self, kind: str, message: str) -> None:
        if self._database is not None:
            Faults(self._database, self._params.market).record("retraining", kind, message)

    def _late(self) -> dict[str, float]:
        """Return which components are silent, but for this one and those that said goodbye."""
        if self._database is None:
            return {}
        beats = Heartbeats(self._database, self._params.market).read()
        own = (COMPONENT, parity.COMPONENT)
        there = [beat for beat in beats if beat.component not in own and beat.state != "stopped"]
        return self._staleness.late_components(there, datetime.now(UTC))

    def _trouble(self, error: TradeloopError) -> None:
        """Say it once, and let go of all that may have been left in the middle."""
        if not self._troubles:
            self._say(f"the loop waits: {error}")
        log.warning("turn failed: %s", error)
        self._troubles = min(self._troubles + 1, 10)
        self._drop()

    def _recovered(self) -> None:
        if self._troubles:
            self._troubles = 0
            self._say("the loop goes on")

    def _drop(self) -> None:
        """Forget the loop, not what it trains: a new one goes on from what is on disk."""
        self._loop = None

    def _close(self) -> None:
        try:
            if self._loop is not None:
                self._loop.close()
        except TradeloopError as error:
            log.warning("the queue learns later what stopped: %s", error)
        self._trainer.close()
        self._reports.close()
        if self._online is not None:
            self._online.close()
        if self._database is None:
            return
        try:
            Heartbeats(self._database, self._params.market).beat(COMPONENT, "stopped", "", None)
            Leases(self._database).release(self._lease, self._owner)
        except StoreError as error:
            log.warning("the loop ends without a word: %s", error)
        self._database.close()


def _newest(times: Iterable[Times]) -> datetime:
    closes: list[Any] = [series[-1].item() for series in times if len(series)]
    if not closes:
        raise StoreError("a replayed market's clock stands at its last bar, and the source has none")
    newest: datetime = max(closes)
    return newest.replace(tzinfo=UTC)


def _integrity(feed: SourceFeed) -> dict[str, Any]:
    """Return the series that could not be taken: a symbol without usable bars scores nothing."""
    problems = feed.problems
    if not problems:
        return {}
    scores = dict.fromkeys(problems, 0.0)
    return {"integrity": {"scores": scores, "findings": [f"{name}: {why}" for name, why in problems.items()]}}
