"""From feature rows to predictions; the same code in the service and in replay.

A trade is advised only if nothing speaks against it:

1. the features are there, of the bundle's schema, and not older than the market's clock allows; otherwise no number
   is given at all;
2. the holdout proved that direction can be forecast;
3. the probability is at least the bundle's threshold away from one half;
4. the expected edge exceeds a round trip's costs plus the edge that must remain.

The expected edge is ``side · expected return`` where the holdout proved the return forecast, else ``|2p - 1| · E|r|``
with ``E|r| = σ √(2 h / π)``: the mean absolute log return over h bars of independent normal returns with the forecast
volatility σ per bar, as if the size of a move did not depend on its direction.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeloop.bundle import FORECASTS, Bundle
from tradeloop.ensemble import Forecast

Verdict = Literal["trade", "abstain"]
Arm = Literal["champion", "shadow", "canary", "ab"]
Reason = Literal[
    "schema_mismatch",
    "missing_features",
    "stale_features",
    "future_features",
    "invalid_forecast",
    "no_proven_edge",
    "low_confidence",
    "below_cost",
]

_BASIS_POINT = 1e-4


class Rows(Protocol):
    """Feature rows of n symbols as the online store returns them; times are ``datetime64[us]``, UTC."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Feature rows (n, d) in schema order, NaN where missing."""

    @property
    def feature_time(self) -> NDArray[np.datetime64]:
        """Close of the bar that each row was made at (n,), NaT where missing."""

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether the store has the symbol (n,)."""


class Adapting(Protocol):
    """A snapshot of online adaptation, see `tradeloop.adaptation`."""

    @property
    def cost_bps(self) -> float | None:
        """What a trade has turned out to cost one way; raises the bundle's cost, never lowers it."""

    def apply(self, forecast: Forecast, x: NDArray[np.float32], /) -> Forecast:
        """Return what becomes of the forecasts of feature rows (n, d)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one symbol.

    Attributes
    ----------
    id
        Sortable by the wall time at which it was made; None for an unknown symbol, which is not logged.
    asked_at, feature_time
        The market's time and that of the features, UTC.
    p_up
        Probability that the trade from entry to exit gains.
    ret, ret_low, ret_high
        Expected gross log return over the horizon, with its interval.
    range, range_low, range_high
        Expected volatility per bar as a fraction of the price, with its interval.
    side
        The side that the probability favours; None without a forecast.
    edge
        Expected gross edge of that side, a log return.
    features
        The row that was used, float32 (d,); for the log.
    arm, answered, parent
        Whether it answers the bot, or only watches; `parent` is then the id of the prediction that did answer.
    latency
        Milliseconds from question to forecast, None where nobody took the time.
    adaptation
        The snapshot of online adaptation that was applied, None for the bundle as it was packaged.
    """

    id: str | None
    market: str
    symbol: str
    status: Literal["ok", "unknown_symbol"]
    asked_at: datetime
    feature_time: datetime | None
    max_age: float
    clock: str
    model: str
    version: str
    schema_hash: str
    features: NDArray[np.float32]
    verdict: Verdict
    reasons: tuple[Reason, ...]
    p_up: float | None = None
    ret: float | None = None
    ret_low: float | None = None
    ret_high: float | None = None
    range: float | None = None
    range_low: float | None = None
    range_high: float | None = None
    side: Literal["long", "short"] | None = None
    edge: float | None = None
    arm: Arm = "champion"
    answered: bool = True
    parent: str | None = None
    latency: float | None = None
    adaptation: str | None = None

    @property
    def feature_age(self) -> float | None:
        """Seconds from the features' time to the time of the question."""
        return None if self.feature_time is None else (self.asked_at - self.feature_time).total_seconds()


def new_ids(count: int) -> list[str]:
    """Return UUIDs of version 7 (RFC 9562), up to 16,384: they sort by the wall's millisecond, then by position."""
    stem = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | 0x2 << 62
    random = os.urandom(8 * count)
    ids = []
    for i in range(count):
        tail = int.from_bytes(random[8 * i : 8 * i + 8]) & ((1 << 60) - 1)
        text = f"{stem | (i >> 2 & 0xFFF) << 64 | (i & 3) << 60 | tail:032x}"
        ids.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return ids


class Predictor:
    """Answers for one bundle; stateless, so any number of threads may share it.

    Parameters
    ----------
    bundle
        The model.
    adaptation, snapshot
        A snapshot of online adaptation that is applied to every forecast, and its id; both or neither.
    """

    def __init__(self, bundle: Bundle, adaptation: Adapting | None = None, snapshot: str | None = None) -> None:
        if (adaptation is None) != (snapshot is None):
            raise ValueError("an adaptation and its snapshot's id come together")
        self.bundle = bundle
        self.snapshot = snapshot
        self._adaptation = adaptation
        manifest = bundle.manifest
        self._symbols = frozenset(manifest.symbols)
        self._threshold = manifest.thresholds.probability
        learned = None if adaptation is None else adaptation.cost_bps
        cost = max(manifest.thresholds.cost_bps, learned or 0.0)
        self._hurdle = (2 * cost + manifest.thresholds.min_edge_bps) * _BASIS_POINT
        self._proven = manifest.edge_proven.get("direction", False)
        self._return_proven = manifest.edge_proven.get("return", False)
        self._mean_move = math.sqrt(2 * manifest.labels.horizon / math.pi)

    def predict(
        self,
        symbols: Sequence[str],
        rows: Rows,
        *,
        now: datetime | Sequence[datetime],
        max_age: timedelta,
        clock: str,
        arm: Arm = "champion",
        parents: Sequence[str] | None = None,
        since: float | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Prediction]:
        """Answer for each of n symbols.

        Parameters
        ----------
        symbols
            Names; one that the bundle was not trained on gets status ``unknown_symbol`` and no id.
        rows
            The store's rows for them, in their order.
        now
            The market's time, aware: one for all, or one for each.
        max_age
            Age above which a feature row is stale.
        clock
            Mode of the clock that `now` was read from; goes into the answer.
        arm
            What the model is to this question.
        parents
            For a model that only watches: the id of the answered prediction of each symbol.
        since
            `time.perf_counter` when the question came, for `latency`; None for no latency.
        ids
            The predictions' ids; by default new ones, which the wall's time and chance make.
        """
        asked = _moments(now, len(symbols))
        blocked = self._blocked(rows, asked, max_age)
        known = [symbol in self._symbols for symbol in symbols]
        usable = [i for i, reason in enumerate(blocked) if reason is None and known[i]]
        forecasts = iter(self._forecast(rows.vectors, usable))
        common = self._common(max_age, clock) | {"arm": arm, "answered": parents is None}
        common["latency"] = None if since is None else (time.perf_counter() - since) * 1e3
        times = rows.feature_time.astype("datetime64[us]").tolist()
        answers = []
        for i, (symbol, new_id) in enumerate(zip(symbols, ids or new_ids(len(symbols)), strict=True)):
            decision: dict[str, Any] = {"id": new_id, "status": "ok", "verdict": "abstain", "reasons": (blocked[i],)}
            if not known[i]:
                decision |= {"id": None, "status": "unknown_symbol", "reasons": ()}
            elif blocked[i] is None:
                decision |= self._decide(next(forecasts))
            decision["asked_at"] = asked[i]
            decision["feature_time"] = times[i].replace(tzinfo=UTC) if times[i] else None
            decision["parent"] = parents[i] if parents else None
            answers.append(Prediction(**common, symbol=symbol, features=rows.vectors[i], **decision))
        return answers

    def _common(self, max_age: timedelta, clock: str) -> dict[str, Any]:
        """Return what all answers of a call have in common."""
        bundle = self.bundle
        return {
            "market": bundle.manifest.market,
            "max_age": max_age.total_seconds(),
            "clock": clock,
            "model": bundle.hash,
            "version": bundle.version,
            "schema_hash": bundle.schema.hash,
            "adaptation": self.snapshot,
        }

    def _blocked(self, rows: Rows, asked: Sequence[datetime], max_age: timedelta) -> list[Reason | None]:
        """Return, for each row, why there can be no forecast from it."""
        if rows.vectors.ndim != 2 or rows.vectors.shape[1] != len(self.bundle.schema):
            return ["schema_mismatch"] * len(rows.found)
        times = rows.feature_time.astype("datetime64[us]")
        age = np.array([moment.replace(tzinfo=None) for moment in asked], dtype="datetime64[us]") - times
        reasons = np.full(len(times), None, dtype=object)
        reasons[age > np.timedelta64(max_age)] = "stale_features"
        reasons[age < np.timedelta64(0, "us")] = "future_features"
        reasons[~(rows.found & np.isfinite(rows.vectors).all(axis=1)) | np.isnat(times)] = "missing_features"
        blocked: list[Reason | None] = reasons.tolist()
        return blocked

    def _forecast(self, vectors: NDArray[np.float32], usable: list[int]) -> list[dict[str, float]]:
        """Return the numbers of each usable row, in their order; the range as a fraction."""
        if not usable:
            return []
        x = vectors if len(usable) == len(vectors) else vectors[usable]
        forecast = self.bundle.forecast(x)
        if self._adaptation is not None:
            forecast = self._adaptation.apply(forecast, x)
        columns = [getattr(forecast, name).tolist() for name in FORECASTS[:4]]
        columns += [np.exp(getattr(forecast, name)).tolist() for name in FORECASTS[4:]]
        return [dict(zip(FORECASTS, row, strict=True)) for row in zip(*columns, strict=True)]

    def _decide(self, numbers: Mapping[str, float]) -> dict[str, Any]:
        """Return side, edge, verdict and reasons of a forecast."""
        if not all(map(math.isfinite, numbers.values())):
            return {"verdict": "abstain", "reasons": ("invalid_forecast",)}
        p = numbers["p_up"]
        sign = 1.0 if p >= 0.5 else -1.0
        implied = abs(2 * p - 1) * numbers["range"] * self._mean_move
        edge = sign * numbers["ret"] if self._return_proven else implied
        reasons: list[Reason] = []
        if not self._proven:
            reasons.append("no_proven_edge")
        if abs(p - 0.5) < self._threshold:
            reasons.append("low_confidence")
        if edge <= self._hurdle:
            reasons.append("below_cost")
        verdict: Verdict = "abstain" if reasons else "trade"
        side = "long" if sign > 0 else "short"
        return {**numbers, "side": side, "edge": edge, "verdict": verdict, "reasons": tuple(reasons)}


def _moments(now: datetime | Sequence[datetime], count: int) -> list[datetime]:
    """Return the time of each of `count` questions, in UTC."""
    if isinstance(now, datetime):
        return [now.astimezone(UTC)] * count
    if len(now) != count:
        raise ValueError(f"one time for all or one for each of {count} symbols, got {len(now)}")
    return [moment.astimezone(UTC) for moment in now]
