"""What the engine is made of once the database is open, put together and taken apart in one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params, parse_interval
from tradeloop.layout import Layout
from tradeloop.prediction_log import PredictionLog
from tradeloop.registry import Registry
from tradeloop.serving.changes import Changes
from tradeloop.serving.features import FeatureReader
from tradeloop.serving.forecasts import Forecaster
from tradeloop.serving.holder import LineupHolder
from tradeloop.serving.incidents import Incidents
from tradeloop.serving.pace import Pace
from tradeloop.serving.telemetry import Telemetry
from tradeloop.serving.watchers import Watcher, Watchers
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database, database_url

_BUSY_SECONDS = 1.0
"""A database that another process holds for longer is an answer 503, before BentoML's own timeout of two seconds."""


@dataclass(frozen=True)
class Parts:
    """What is there once the service has started."""

    database: Database
    log: PredictionLog
    registry: Registry
    holder: LineupHolder
    features: FeatureReader
    forecaster: Forecaster
    watchers: Watchers
    pace: Pace

    @classmethod
    def open(
        cls, layout: Layout, params: Params, telemetry: Telemetry, incidents: Incidents, *, baked: Path | None
    ) -> Parts:
        """Open the database, and build the rest on it.

        Parameters
        ----------
        telemetry, incidents
            Where to count, and where to note what goes wrong.
        baked
            The Bento's own bundle, or None.

        Raises
        ------
        StoreError
            The database does not answer; nothing is left open.
        """
        market, budget = params.market, params.serving.challenger_budget_ms / 1e3
        database = Database.open(database_url(layout, params), busy_timeout=_BUSY_SECONDS)
        try:
            features = FeatureReader(layout, params)
            registry = Registry(database, market, clock=features.clock)
            holder = LineupHolder(
                registry,
                BundleStore(layout, params).get,
                Changes(features, telemetry, incidents),
                market=market,
                baked=baked,
                budget=budget,
                adaptations=AdaptationStore(database, market),
                learned=params.adapt.enabled,
            )
            log = PredictionLog(database)
        except BaseException:
            database.close()
            raise
        max_age, most = parse_interval(params.active.max_age), params.serving.challenger_queue
        pace = Pace()
        watcher = partial(
            Watcher, writer=log, read=features.rows, tally=incidents, pace=pace, max_age=max_age, most=most
        )
        forecaster = Forecaster(features, max_age, incidents)
        return cls(database, log, registry, holder, features, forecaster, Watchers(watcher, budget), pace)

    def close(self) -> None:
        """Finish what is being written and let go of everything."""
        self.watchers.close()
        self.log.close()
        self.features.close()
        self.database.close()
