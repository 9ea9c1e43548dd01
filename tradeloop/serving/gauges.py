"""Gauges of what stands in the database, for /metrics: read now and then by the service, never by a scrape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_WATCHES = ("skill", "calibration", "parity", "retraining")
_EXPECTED = ("accuracy", "log_loss", "auc")
_MODE: Any = {"multiprocess_mode": "livemostrecent"}


class Gauges:
    """The loop's state as one worker last saw it.

    Parameters
    ----------
    registry
        Where they are registered; by default where BentoML looks for them.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Gauge

        to: Any = {"registry": registry or REGISTRY, **_MODE}
        self._predictions = Gauge(
            "tradeloop_logged_predictions", "Predictions in the log, by how they ended", ["status"], **to
        )
        self._jobs = Gauge("tradeloop_jobs", "Retrainings, by state", ["state"], **to)
        self._ages = Gauge("tradeloop_heartbeat_age_seconds", "Since when a component was seen", ["component"], **to)
        self._alarms = Gauge("tradeloop_alarm", "1 while an alarm of the champion stands", ["watch"], **to)
        self._challengers = Gauge("tradeloop_challengers", "Models beside the champion", ["mode"], **to)
        skill = "The champion's live performance in its newest window over all symbols"
        self._skill = Gauge("tradeloop_live_performance", skill, ["window", "metric"], **to)
        expected = "What to expect of the serving model's open predictions, if its calibration holds"
        self._expected = Gauge("tradeloop_expected_skill", expected, ["metric"], **to)

    def show(
        self, status: Mapping[str, Any], windows: Sequence[Mapping[str, Any]], expected: Mapping[str, Any]
    ) -> None:
        """Take over `monitoring.overview.status`, the champion's windows over all symbols, and `monitoring.cbpe`'s."""
        for name, count in status["predictions"].items():
            if name != "total":
                self._predictions.labels(name).set(count)
        for name, count in status["jobs"].items():
            self._jobs.labels(name).set(count)
        for beat in status["heartbeats"]:
            self._ages.labels(beat["component"]).set(beat["age_seconds"])
        standing = {alarm["watch"] for alarm in status["alarms"]}
        for watch in _WATCHES:
            self._alarms.labels(watch).set(watch in standing)
        modes = [route["mode"] for route in status["challengers"]]
        for mode in ("shadow", "canary", "ab"):
            self._challengers.labels(mode).set(modes.count(mode))
        for window in windows:
            for name, value in window["metrics"].items():
                if isinstance(value, int | float):
                    self._skill.labels(window["window"], name).set(value)
        for name in _EXPECTED:
            found = expected.get(name)
            self._expected.labels(name).set(found["value"] if found else math.nan)
