"""What follows the outcomes: performance windows, the champion's watch, its adaptation, the market's regime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from tradeloop.bundle import Bundle
from tradeloop.config import Params
from tradeloop.errors import BundleError
from tradeloop.loop.adapt import Adapter
from tradeloop.loop.costs import CostWatch
from tradeloop.loop.market_regime import MarketRegime
from tradeloop.loop.snapshots import Snapshot, append, logged_features
from tradeloop.loop.watch import ChampionWatch, Part
from tradeloop.monitoring.evidence import RegimeNow
from tradeloop.monitoring.feed import BarFeed, Version
from tradeloop.monitoring.performance import PerformanceBook, Replay
from tradeloop.monitoring.records import Resolved
from tradeloop.monitoring.scorecard import MarketFacts
from tradeloop.predictor import Prediction
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database

_KEPT = 20_000
"""Feature rows of fresh predictions that are kept until their outcomes come."""


class Followed:
    """Everything that is a function of the outcomes in their order, for one market.

    Parameters
    ----------
    bundle_of
        Returns the verified bundle of a hash, or raises BundleError.
    """

    def __init__(self, database: Database, params: Params, bundle_of: Callable[[str], Bundle]) -> None:
        self._database = database
        self._params = params
        self._bundle_of = bundle_of
        self._store = AdaptationStore(database, params.market)
        self._regime = MarketRegime()
        self._book = PerformanceBook(params.performance, MarketFacts.of(params))
        self._written = 0
        self._costs = CostWatch(database, params)
        self._watch: ChampionWatch | None = None
        self._adapter: Adapter | None = None
        self._features: dict[str, NDArray[np.float32]] = {}
        self._newest: dict[str, datetime] = {}
        self._closes: dict[str, tuple[Version, datetime | None]] = {}
        self.snapshots: list[Snapshot] = []
        """Of the adaptation, not yet written."""

    @property
    def watch(self) -> ChampionWatch | None:
        """The champion's watch; None without a champion, or with one whose bundle is broken."""
        return self._watch

    @property
    def train_end(self) -> datetime | None:
        """Time of the champion's newest training row."""
        return self._watch.bundle.manifest.train_end if self._watch else None

    @property
    def regime(self) -> RegimeNow:
        """The market's volatility regime."""
        return self._regime.now

    def champion(self, model: str | None) -> None:
        """Follow another champion: its watch begins empty. One whose bundle is broken cannot be watched."""
        if model == (self._watch.bundle.hash if self._watch else None):
            return
        try:
            bundle = self._bundle_of(model) if model else None
        except BundleError:
            bundle = None
        self._watch = ChampionWatch(bundle, self._params) if bundle else None
        self._adapter = Adapter(bundle, self._params.adapt) if bundle else None
        self.snapshots = []

    def note(self, fresh: Sequence[Prediction]) -> None:
        """Keep the feature rows of predictions that were just logged: they need not be read."""
        if len(self._features) > _KEPT:
            self._features.clear()
        self._features.update((one.id, one.features) for one in fresh if one.id is not None)
        for one in fresh:
            self._see(one.symbol, one.feature_time)

    def update(self, batch: Sequence[Resolved]) -> None:
        """Take the outcomes of one feature time, of all models."""
        self._regime.update(batch)
        for one in batch:
            self._book.update(one)
            self._see(one.prediction.symbol, one.prediction.feature_time)
        own = [one for one in batch if self._watch and one.prediction.model == self._watch.bundle.hash]
        rows = self._rows([one.prediction.id for one in own])
        for one in batch:
            self._features.pop(one.prediction.id, None)
        if not own or self._watch is None:
            return
        self._watch.update(own, rows)
        if self._adapter is not None and self._params.adapt.enabled:
            self.snapshots += self._adapter.update(own, rows)

    def restated(self, revised: Sequence[Resolved]) -> None:
        """Correct the windows; watches and adaptation go by what was known when they decided."""
        for one in revised:
            self._book.restate(one)

    def newest(self, symbol: str) -> datetime | None:
        """Return the newest feature time of a symbol that was forecast from."""
        return self._newest.get(symbol)

    def closed(self, symbol: str, feed: BarFeed) -> datetime | None:
        """Return the close of a symbol's newest bar."""
        version = feed.version(symbol)
        known = self._closes.get(symbol)
        if known is None or known[0] != version:
            times = feed.bars(symbol).timestamp
            at = times[-1].item().replace(tzinfo=UTC) if len(times) else None
            known = self._closes[symbol] = (version, at)
        return known[1]

    def look_at_costs(self, now: datetime) -> None:
        """Look at what fills cost, if it is time; a hurdle that moved goes into the adaptation's next snapshot."""
        assumed = self._watch.bundle.manifest.thresholds.cost_bps if self._watch else None
        advice = self._costs.look(now, assumed)
        if advice is None or self._adapter is None:
            return
        seq = self._book.seq
        moved = self._adapter.set_cost(advice.hurdle_bps, outcome_seq=seq, market_time=now, reason=advice.reason)
        if moved is not None:
            self.snapshots.append(moved)

    def costs(self) -> Part:
        """Return the evidence on what trades cost."""
        return self._costs.evidence

    def skill(self) -> Part:
        """Return the evidence on the champion's skill."""
        return self._watch.skill() if self._watch else {}

    def calibration(self) -> Part:
        """Return the evidence on its calibration."""
        return self._watch.calibration() if self._watch else {}

    def drift(self) -> Part:
        """Return the evidence on drift of its features."""
        return self._watch.drift() if self._watch else {}

    def due(self) -> bool:
        """Return whether there is something to write."""
        return bool(self.snapshots) or self._book.seq - self._written >= self._params.performance.every

    def write(self, connection: Connection, now: datetime) -> None:
        """Write what has come up since the last time, in the caller's transaction."""
        if self._book.seq - self._written >= self._params.performance.every:
            self._book.write(connection, self._params.market, now)
            self._written = self._book.seq
        if self.snapshots and self._watch is not None:
            append(self._store, self._watch.bundle.hash, self.snapshots, connection)
        self.snapshots = []

    def state(self) -> Part:
        """Return what `restore` needs."""
        return {
            "regime": self._regime.state(),
            "book": self._book.state(),
            "costs": self._costs.state(),
            "newest": {symbol: at.isoformat() for symbol, at in self._newest.items()},
            "watch": self._watch.state() if self._watch else None,
            "adapter": self._adapter.state() if self._adapter else None,
        }

    def restore(self, state: Mapping[str, Any], replay: Replay) -> None:
        """Go on from `state`; a watch of another champion, or of other parameters, begins empty.

        Parameters
        ----------
        replay
            Yields the resolved predictions after an outcome's number, in order.
        """
        self._book.restore(state["book"], replay)
        self._written = self._book.seq
        self._costs.restore(state["costs"])
        self._regime.restore(state["regime"])
        self._newest = {symbol: datetime.fromisoformat(at) for symbol, at in state["newest"].items()}
        watch, adapter = state["watch"], state["adapter"]
        if self._watch is None or self._adapter is None or watch is None or watch["model"] != self._watch.bundle.hash:
            return
        try:
            self._watch.restore(watch)
            self._adapter.restore(adapter)
        except ValueError:
            bundle = self._watch.bundle
            self._watch, self._adapter = ChampionWatch(bundle, self._params), Adapter(bundle, self._params.adapt)

    def _see(self, symbol: str, at: datetime | None) -> None:
        if at is not None:
            self._newest[symbol] = max(at, self._newest.get(symbol, at))

    def _rows(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the feature rows of predictions, from memory or from the log."""
        if all(name in self._features for name in ids) and ids:
            return np.stack([self._features[name] for name in ids])
        return logged_features(self._database, ids)
