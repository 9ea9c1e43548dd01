r"""What the rules find in a series, the score that follows, and the cleaning that is allowed.

Score
-----
.. math:: \text{score} = 100 - \sum_{\text{rules}} \min(\text{cap}, \text{weight} \times \text{percent of bars})

with the weights and caps of `RULES`; bars that break the rule, in percent of those that there are or should be.
A symbol without findings has 100; one with a quarter of its bars without volume loses 6 points, one that lacks 3% of
its bars loses 3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, PRICES, to_times, validate_bars
from tradeloop.config import Check
from tradeloop.errors import DataError
from tradeloop.integrity import rules
from tradeloop.integrity.rules import Hits, Mask, Series, Severity, stamp

EXAMPLES = 3


@dataclass(frozen=True)
class Rule:
    """How much a broken rule matters.

    Attributes
    ----------
    severity
        An ``error`` stops the check, unless cleaning drops the bars (`Check.drop`); a ``warning`` is reported.
    weight, cap
        Points of the score lost for each percent of bars, and at most.
    """

    severity: Severity
    weight: float
    cap: float


RULES: Mapping[str, Rule] = {
    "not_finite": Rule("error", 20, 100),
    "non_positive_price": Rule("error", 20, 100),
    "negative_volume": Rule("error", 20, 100),
    "broken_ohlc": Rule("error", 20, 100),
    "out_of_order": Rule("error", 20, 100),
    "duplicate": Rule("error", 1, 10),
    "partial_bar": Rule("error", 1, 10),
    "split": Rule("warning", 50, 50),
    "gap": Rule("warning", 1, 50),
    "stale": Rule("warning", 1, 50),
    "off_grid": Rule("warning", 1, 30),
    "jump": Rule("warning", 5, 20),
    "zero_volume": Rule("warning", 0.25, 10),
    "rounding": Rule("warning", 0, 0),
}


@dataclass(frozen=True)
class Finding:
    """One breach of one rule, for a person."""

    symbol: str
    time: str
    rule: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class Report:
    """What was found in one symbol's series.

    Attributes
    ----------
    rows
        Bars in the raw series.
    hits
        Rule → where it is broken; rules that hold are left out.
    kept
        Which raw rows cleaning keeps, shape (rows,).
    score
        0 to 100; see the module.
    """

    symbol: str
    rows: int
    hits: Mapping[str, Hits]
    kept: Mask
    score: float
    raw: pd.DataFrame

    def findings(self, rule: str, limit: int | None = None) -> list[Finding]:
        """Return the findings of a rule, in time as the file has it, at most `limit`."""
        hits = self.hits.get(rule)
        if hits is None:
            return []
        return [
            Finding(self.symbol, stamp(hits.times[hit]), rule, RULES[rule].severity, hits.text(hit))
            for hit in range(len(hits))[:limit]
        ]

    @property
    def blocking(self) -> list[str]:
        """The rules of severity error that bars break which cleaning would keep."""
        return [r for r, hits in self.hits.items() if RULES[r].severity == "error" and self.kept[hits.rows].any()]

    def count(self, rule: str) -> int:
        """Return how many bars break a rule."""
        return int(self.hits[rule].bars.sum()) if rule in self.hits else 0

    def clean(self) -> pd.DataFrame:
        """Return the bars that are kept, rounding errors repaired; they satisfy `bars.validate_bars`."""
        frame = self.raw.loc[self.kept, list(COLUMNS)].reset_index(drop=True)
        prices = frame[list(PRICES)]
        frame["high"], frame["low"] = prices.max(axis=1), prices.min(axis=1)
        return validate_bars(frame, name=self.symbol)

    def summary(self) -> dict[str, Any]:
        """Return the report as JSON has it: counts of bars by rule, and the first few findings of each."""
        kept = to_times(self.raw["timestamp"])[self.kept]
        return {
            "score": round(self.score, 2),
            "rows": self.rows,
            "bars": int(self.kept.sum()),
            "first": stamp(kept.min()) if len(kept) else None,
            "last": stamp(kept.max()) if len(kept) else None,
            "findings": {rule: self.count(rule) for rule in self.hits},
            "examples": {
                rule: [{"time": f.time, "text": f.text} for f in self.findings(rule, EXAMPLES)] for rule in self.hits
            },
        }


def inspect(symbol: str, frame: pd.DataFrame, *, calendar: str, interval: timedelta, config: Check) -> Report:
    """Hold a raw bar frame to all rules.

    1. Rules for single bars, and partial bars and duplicates, look at the series as it is.
    2. What `config.drop` names is taken away; of duplicates the last copy stays, as an earlier one may have been read
       before its bar had closed.
    3. Rules for sequences (order, gaps, grid, runs, jumps) look at what is left.

    Raises
    ------
    DataError
        If there are no bars.
    """
    series = _series(symbol, frame, calendar, interval)
    found = {
        name: getattr(rules, name)(series)
        for name in (
            *("not_finite", "non_positive_price", "negative_volume", "broken_ohlc", "rounding"),
            *("duplicate", "partial_bar", "zero_volume"),
        )
    }
    kept = _kept(series, found, config.drop)
    # A bar that is dropped for want of volume was there: it is no gap.
    present = _kept(series, found, set(config.drop) - {"zero_volume"})
    if kept.any():
        sequence = {name: getattr(rules, name) for name in ("out_of_order", "gap", "off_grid", "stale")}
        sequence |= {name: partial(getattr(rules, name), jump_z=config.jump_z) for name in ("jump", "split")}
        for name, rule in sequence.items():
            looked_at = present if name == "gap" else kept
            hits = rule(series[looked_at])
            found[name] = Hits(np.flatnonzero(looked_at)[hits.rows], hits.times, hits.bars, hits.text)
    hits = {name: found[name] for name in RULES if name in found and len(found[name])}
    return Report(symbol, len(series), hits, kept, _score(len(series), hits), frame)


def _series(symbol: str, frame: pd.DataFrame, calendar: str, interval: timedelta) -> Series:
    if frame.empty:
        raise DataError(f"{symbol}: there are no bars")
    prices = frame[list(PRICES)].to_numpy().T
    return Series(to_times(frame["timestamp"]), prices, frame["volume"].to_numpy(), calendar, interval)


def _kept(series: Series, found: Mapping[str, Hits], drop: Collection[str]) -> Mask:
    kept = np.ones(len(series), dtype=bool)
    for name in ("partial_bar", "zero_volume"):
        if name in drop:
            kept[found[name].rows] = False
    if "duplicate" in drop:
        left = np.flatnonzero(kept)
        kept[left[rules.duplicate(series[kept]).rows]] = False
    return kept


def _score(rows: int, hits: Mapping[str, Hits]) -> float:
    bars = rows + (int(hits["gap"].bars.sum()) if "gap" in hits else 0)
    lost = sum(
        min(rule.cap, rule.weight * 100 * int(hits[name].bars.sum()) / bars)
        for name, rule in RULES.items()
        if name in hits
    )
    return max(0.0, 100.0 - lost)


def admit(report: Report, config: Check, *, file: str) -> pd.DataFrame:
    """Return the cleaned bars of a series that is fit to learn from.

    Raises
    ------
    DataError
        Naming file, symbol, time and rule of the first breach that cleaning may not mend, and how many there are; or
        saying that the score or the number of bars is too low.
    """
    if report.blocking:
        rule = report.blocking[0]
        hits = report.hits[rule]
        first = int(np.flatnonzero(report.kept[hits.rows])[0])
        others = f"; also {', '.join(report.blocking[1:])}" if report.blocking[1:] else ""
        raise DataError(
            f"{file}: {report.symbol} at {stamp(hits.times[first])} breaks {rule}: {hits.text(first)}; "
            f"{int(report.kept[hits.rows].sum())} such bars{others}"
        )
    bars = int(report.kept.sum())
    if bars < config.min_bars:
        raise DataError(
            f"{file}: {report.symbol} has {bars} bars, at least check.min_bars = {config.min_bars} are needed"
        )
    if report.score < config.min_score:
        why = ", ".join(f"{rule} {report.count(rule)}" for rule in report.hits)
        rule = f"at least check.min_score = {config.min_score:g} is needed"
        raise DataError(f"{file}: {report.symbol} scores {report.score:.1f}, {rule} (bars by rule: {why})")
    return report.clean()


def check_context(frame: pd.DataFrame, *, file: str) -> pd.DataFrame:
    """Return a context frame as it is, if its values are finite, and none is known before its time or out of order.

    Raises
    ------
    DataError
        Naming file, time and rule of the first row that is not so.
    """
    rules = {
        "close must be finite": ~np.isfinite(frame["close"]),
        "known_at must not be before the time itself": frame["known_at"] < frame["timestamp"],
        "times must not decrease": frame["timestamp"].diff() < pd.Timedelta(0),
        "known_at must not decrease": frame["known_at"].diff() < pd.Timedelta(0),
    }
    for rule, broken in rules.items():
        if broken.any():
            raise DataError(f"{file} at {frame['timestamp'][broken].iloc[0]}: {rule}; {int(broken.sum())} such rows")
    return frame
