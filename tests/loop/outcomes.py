"""Outcomes of a tiny bundle's forecasts, whose truth a test chooses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bundles import tiny_rows
from tradeloop.bundle import Bundle
from tradeloop.ensemble import Forecast, logit, sigmoid
from tradeloop.monitoring.records import Logged, Outcome, Resolved

START = datetime(2020, 1, 1, tzinfo=UTC)
_UNUSED: dict[str, Any] = dict.fromkeys(
    ("parent", "p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high", "side", "edge", "latency")
)


def resolved(
    seq: int, model: str, *, symbol: str = "AAPL", bar: int | None = None, revision: int = 0, **labels: float
) -> Resolved:
    """Return an outcome; `bar` counts hours, by default `seq`. It is known an hour later."""
    at = START + timedelta(hours=seq if bar is None else bar)
    logged = Logged(
        id=f"{seq}-{symbol}",
        symbol=symbol,
        model=model,
        arm="champion",
        answered=True,
        asked_at=at,
        feature_time=at,
        clock="virtual",
        verdict="trade",
        adaptation=None,
        **_UNUSED,
    )
    end = at + timedelta(hours=1)
    outcome = Outcome(
        seq=seq,
        prediction_id=logged.id,
        status="resolved",
        reason=None,
        label_end=end,
        regime="normal",
        revision=revision,
        resolved_at=end,
        direction=labels.get("direction", 1.0),
        ret=labels.get("ret", 0.0),
        range=labels.get("range", -4.5),
    )
    return Resolved(logged, outcome)


def stream(
    bundle: Bundle, count: int, *, seed: int = 0, slope: float = 1.0, shift: float = 0.0, spread: float = 1.0
) -> tuple[list[Resolved], NDArray[np.float32], Forecast]:
    """Return outcomes that the bundle forecasts well, but for what is planted.

    Parameters
    ----------
    slope
        The truth's log odds over those forecast: 0.5 is a bundle that is too sure of itself.
    shift
        By how many half widths log range lies above its forecast.
    spread
        By how much the errors of return and range are larger than the intervals say.
    """
    rng = np.random.default_rng(seed)
    x = tiny_rows(count, seed=seed + 1)
    forecast = bundle.forecast(x)
    up = rng.random(count) < sigmoid(slope * logit(forecast.p_up))

    def around(centre: NDArray[Any], low: NDArray[Any], high: NDArray[Any], moved: float) -> NDArray[Any]:
        half = (high - low) / 2
        return centre + half * (moved + spread * rng.standard_normal(count) / 1.645)

    ret = around(forecast.ret, forecast.ret_low, forecast.ret_high, 0.0)
    log_range = around(forecast.range, forecast.range_low, forecast.range_high, shift)
    outcomes = [
        resolved(i + 1, bundle.hash, direction=float(up[i]), ret=float(ret[i]), range=float(log_range[i]))
        for i in range(count)
    ]
    return outcomes, x, forecast
