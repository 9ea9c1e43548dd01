"""What an outcome adds to a window, and the metrics that follow from a window's sums and series.

Two kinds of metrics:

- *sums*: accuracy, precision, recall, F1, Brier, log loss, RMSE, MAE, coverage, volatility-adjusted hit rate, latency
  and abstention follow from sums of `TERMS` over the window, which change by what enters and what leaves;
- *series*: AUC, ECE and IC need the order of all values, R² their spread, and Sharpe, Sortino, win rate, profit factor,
  drawdown and turnover the sequence of returns. They are computed from the window's `SERIES` by `tradeloop.metrics`
  when they are asked for.

A prediction's trade goes the way of its `side` if its verdict was ``trade``, from the labels' entry to their exit, and
pays costs both ways. At each feature time capital is shared equally among the window's predictions of that time, and
cut in as many parts as the horizon has bars, as `tradeloop.backtest` does it; a part's whole profit is booked at the
time of its features. With a horizon of one bar and entry at the next open this is the backtest's net return to the last
digit; otherwise the order of profits is the backtest's, their course within the trade is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tradeloop.calendars import expected_closes
from tradeloop.config import Params, parse_interval
from tradeloop.metrics import calibration, classification, financial, regression
from tradeloop.metrics.base import Floats
from tradeloop.monitoring.records import Logged, Resolved

TERMS = (
    *("correct", "true_up", "false_up", "missed_up", "brier", "log_loss"),
    *("return_squared", "return_absolute", "range_squared", "range_absolute"),
    *("return_inside", "return_intervals", "range_inside", "range_intervals"),
    *("abstained", "latency", "timed", "moves_called", "moves"),
)
"""What an outcome adds to a window's sums."""

SERIES = ("p_up", "up", "return_forecast", "ret", "range", "time", "net", "traded")
"""What is kept of an outcome for the metrics that need all values of a window; `time` in microseconds since 1970."""

_T = {name: i for i, name in enumerate(TERMS)}
_S = {name: i for i, name in enumerate(SERIES)}
_EPSILON = float(np.finfo(np.float64).eps)
_LEAST = 1e-300

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class MarketFacts:
    """What metrics need to know of a market.

    Attributes
    ----------
    bars_per_year
        For annualising.
    horizon
        Of the labels, in bars.
    cost_bps
        Basis points of traded value, one way.
    """

    bars_per_year: float
    horizon: int
    cost_bps: float

    @classmethod
    def of(cls, params: Params) -> MarketFacts:
        """Return the facts of the active market; bars a year by its calendar, counted over 2010 to 2019."""
        market, years = params.active, (np.datetime64("2010-01-01", "us"), np.datetime64("2019-12-31T23:59:59", "us"))
        closes = expected_closes(market.calendar, parse_interval(market.interval), *years)
        return cls(len(closes) / 10, params.labels.horizon, params.evaluate.cost_bps)


def entry_of(resolved: Resolved, facts: MarketFacts) -> tuple[list[float], list[float]]:
    """Return an outcome's `TERMS` and `SERIES`."""
    told, ended = resolved.prediction, resolved.outcome
    p, forecast, spread = _number(told.p_up), _number(told.ret), _number(told.range)
    up, ret, log_range = _number(ended.direction), _number(ended.ret), _number(ended.range)
    called, rose = p >= 0.5, up > 0.5
    clipped = min(max(p, _EPSILON), 1.0 - _EPSILON)
    log_forecast = math.log(max(spread, _LEAST))
    move = abs(ret) / max(spread, _LEAST)
    net, traded = _trade(told, ret, facts)
    terms = [
        float(called == rose),
        float(called and rose),
        float(called and not rose),
        float(rose and not called),
        (p - up) ** 2,
        -(up * math.log(clipped) + (1.0 - up) * math.log1p(-clipped)),
        (ret - forecast) ** 2,
        abs(ret - forecast),
        (log_range - log_forecast) ** 2,
        abs(log_range - log_forecast),
        *_inside(ret, told.ret_low, told.ret_high),
        *_inside(math.exp(log_range), told.range_low, told.range_high),
        float(told.verdict != "trade"),
        told.latency or 0.0,
        float(told.latency is not None),
        move if called == rose else 0.0,
        move,
    ]
    time = 0.0 if told.feature_time is None else told.feature_time.timestamp() * 1e6
    return terms, [p, up, forecast, ret, log_range, time, net, traded]


def _number(value: float | None) -> float:
    assert value is not None  # resolved: it was forecast, and its labels are known
    return value


def _inside(actual: float, low: float | None, high: float | None) -> tuple[float, float]:
    if low is None or high is None:
        return 0.0, 0.0
    return float(low <= actual <= high), 1.0


def _trade(told: Logged, ret: float, facts: MarketFacts) -> tuple[float, float]:
    """Return the net return and the value traded, as shares of the capital of the prediction's symbol and time."""
    if told.verdict != "trade" or told.side is None:
        return 0.0, 0.0
    worth, part = math.exp(ret), 1.0 / facts.horizon
    gain = part * (worth - 1.0) if told.side == "long" else part * (1.0 - worth)
    traded = part * (1.0 + worth)
    return gain - traded * facts.cost_bps / 1e4, traded


def of_sums(sums: Floats, count: int, confidence: float) -> Metrics:
    """Return the metrics that follow from a window's sums of `TERMS` (len(TERMS),)."""
    s = dict(zip(TERMS, sums.tolist(), strict=True))
    low, high = wilson(s["correct"], count, confidence)
    return {
        "accuracy": _ratio(s["correct"], count),
        "accuracy_low": low,
        "accuracy_high": high,
        "precision": _ratio(s["true_up"], s["true_up"] + s["false_up"]),
        "recall": _ratio(s["true_up"], s["true_up"] + s["missed_up"]),
        "f1": _ratio(2 * s["true_up"], 2 * s["true_up"] + s["false_up"] + s["missed_up"]),
        "brier": _ratio(s["brier"], count),
        "log_loss": _ratio(s["log_loss"], count),
        "return_rmse": _root(s["return_squared"], count),
        "return_mae": _ratio(s["return_absolute"], count),
        "range_rmse": _root(s["range_squared"], count),
        "range_mae": _ratio(s["range_absolute"], count),
        "return_coverage": _ratio(s["return_inside"], s["return_intervals"]),
        "range_coverage": _ratio(s["range_inside"], s["range_intervals"]),
        "adjusted_hit_rate": _ratio(s["moves_called"], s["moves"]),
        "abstention": _ratio(s["abstained"], count),
        "latency": _ratio(s["latency"], s["timed"]),
    }


def of_series(series: Floats, sums: Floats, facts: MarketFacts) -> Metrics:
    """Return the metrics of a window that need all of its values: `SERIES` (n, len(SERIES)), and the sums."""
    count = len(series)
    p_up, up, forecast, ret, log_range = (series[:, i] for i in range(5))
    net, traded = (values[None] for values in returns(series))
    equal, annual = {"weights": np.ones((1, count))}, {"bars_per_year": facts.bars_per_year}
    # The metrics' own functions: what `Metric` adds, checking each array, would cost as much as they do.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "auc": classification.auc.function(up, p_up, **equal),
            "ece": calibration.ece.function(up, p_up, **equal),
            "ic": regression.ic.function(ret, forecast, **equal),
            "return_r2": _r2(ret, sums[_T["return_squared"]], count),
            "range_r2": _r2(log_range, sums[_T["range_squared"]], count),
            "sharpe": financial.sharpe.function(net, **annual),
            "sortino": financial.sortino.function(net, **annual),
            "win_rate": financial.hit_rate.function(net),
            "profit_factor": financial.profit_factor.function(net),
            "max_drawdown": financial.max_drawdown.function(net),
            "total_return": financial.total_return.function(net),
            "turnover": financial.turnover.function(traded),
        }
    values = {name: float(value[0]) for name, value in found.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def returns(series: Floats) -> tuple[Floats, Floats]:
    """Return the net returns and the value traded, one a feature time, in order of time."""
    times, net, traded = series[:, _S["time"]], series[:, _S["net"]], series[:, _S["traded"]]
    if not (times[1:] > times[:-1]).all():
        _, at = np.unique(times, return_inverse=True)
        share = np.bincount(at)
        net, traded = np.bincount(at, weights=net) / share, np.bincount(at, weights=traded) / share
    return np.maximum(net, -1.0), traded  # who has lost everything stops there


def wilson(successes: float, count: int, confidence: float) -> tuple[float | None, float | None]:
    """Return the interval of a share (Wilson 1927), as if outcomes were independent; None without any."""
    if count == 0:
        return None, None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = successes / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return middle - half, middle + half


def _r2(actual: Floats, squared: float, count: int) -> Floats:
    variance = np.square(actual - actual.mean()).mean(keepdims=True)
    return np.asarray(1.0 - squared / count / np.where(variance > 0, variance, np.nan))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _root(squared: float, count: int) -> float | None:
    # What is left of a sum after all of it has left again may be a rounding error below zero.
    return math.sqrt(max(squared, 0.0) / count) if count else None
