"""What the service does for others now and then: its heartbeat, its errors, the gauges of what is in the database."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from tradeloop.bundle import Bundle
from tradeloop.config import Params
from tradeloop.monitoring.cbpe import expected_of_open
from tradeloop.monitoring.overview import status
from tradeloop.monitoring.queries import ALL, performance
from tradeloop.serving.gauges import Gauges
from tradeloop.serving.incidents import Incidents
from tradeloop.state.database import Database
from tradeloop.state.faults import Faults
from tradeloop.state.heartbeats import Heartbeats

EVERY_SECONDS = 5.0
COMPONENT = "service"


class Upkeep:
    """One worker's upkeep. Every method raises StoreError if the database does not answer."""

    def __init__(self, params: Params, incidents: Incidents, gauges: Gauges) -> None:
        self._market = params.market
        self._incidents = incidents
        self._gauges = gauges

    def do(self, database: Database, *, mode: str, now: datetime | None, unready: str, serving: Bundle | None) -> None:
        """Write what there is to write, and read what /metrics shows.

        Parameters
        ----------
        mode, now
            The market's clock.
        unready
            Why the service is not ready; empty if it is.
        serving
            The bundle that serves.
        """
        state = "unready" if unready else "ok"
        Heartbeats(database, self._market).beat(COMPONENT, state, unready or f"worker {os.getpid()}", now)
        faults = Faults(database, self._market)

        def write(kind: str, message: str, count: int) -> None:
            faults.record(COMPONENT, kind, message, f"{count} time{'' if count == 1 else 's'} since it was last noted")

        self._incidents.flush(write)
        shown = status(database, self._market, clock=mode, now=now)
        champion = shown["champion"]
        windows = [] if champion is None else self._windows(database, champion["hash"])
        expected = serving and expected_of_open(database, self._market, serving.hash, serving.reference)
        self._gauges.show(shown, windows, expected or {})

    def _windows(self, database: Database, model: str) -> list[dict[str, Any]]:
        """Return a model's newest windows over all symbols and regimes, of the answers that it gave as champion."""
        return performance(database, self._market, model=model, symbol=ALL, regime=ALL, arm="champion")
