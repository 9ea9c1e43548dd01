r"""What the rules find in a series, the score that follows, and the cleaning that is allowed.

Score
-----
.. math:: \text{score} = 100 - \sum_{\text{rules}} \min(\text{cap}, \text{weight} \times \text{percent of bars})

with the weights and caps of `RULES`; bars that break the rule, in percent of those that there are or should be.
A symbol without findings has 100; one with a quarter of its bars without volume loses 6 points, one that lacks 3% of
its bars loses 3. `days` gives each day of trading its own score, by the same formula.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, PRICES, to_times, validate_bars
from tradeloop.config import Check
from tradeloop.errors import DataError
from tradeloop.integrity import rules, sequence
from tradeloop.integrity.series import Hits, Mask, Series, stamp

Severity = Literal["error", "warning"]
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


# A weight of 0: told but not scored. Rounding does no harm; the bars of a drift, and irregular ones, lie off the grid
# and count there; a twin is as good a series as the one that it repeats.
RULES: Mapping[str, Rule] = {
    "not_finite": Rule("error", 20, 100),
    "non_positive_price": Rule("error", 20, 100),
    "negative_volume": Rule("error", 20, 100),
    "broken_ohlc": Rule("error", 20, 100),
    "out_of_order": Rule("error", 20, 100),
    "duplicate": Rule("error", 1, 10),
    "partial_bar": Rule("error", 1, 10),
    "restated": Rule("warning", 1, 10),
    "split": Rule("warning", 50, 50),
    "gap": Rule("warning", 1, 50),
    "stale": Rule("warning", 1, 50),
    "off_grid": Rule("warning", 1, 30),
    "jump": Rule("warning", 5, 20),
    "zero_volume": Rule("warning", 0.25, 10),
    "drift": Rule("warning", 0, 0),
    "irregular": Rule("warning", 0, 0),
    "twin": Rule("warning", 0, 0),
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
    series
        The raw series, and `raw` the frame that it was made of.
    hits
        Rule → where it is broken; rules that hold are left out.
    kept
        Which raw rows cleaning keeps, shape (rows,).
    score
        0 to 100; see the module.
    """

    symbol: str
    series: Series
    hits: Mapping[str, Hits]
    kept: Mask
    score: float
    raw: pd.DataFrame

    @property
    def rows(self) -> int:
        """How many bars the raw series has."""
        return len(self.series)

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
        return self.hits[rule].total if rule in self.hits else 0

    def also(self, rule: str, hits: Hits) -> Report:
        """Return the report with what another rule found; it counts in the score."""
        if not len(hits):
            return self
        found = {name: {**self.hits, rule: hits}[name] for name in RULES if name == rule or name in self.hits}
        return replace(self, hits=found, score=_score(self.rows, found))

    def clean(self) -> pd.DataFrame:
        """Return the bars that are kept, rounding errors repaired; they satisfy `bars.validate_bars`."""
        frame = self.raw.loc[self.kept, list(COLUMNS)].reset_index(drop=True)
        prices = frame[list(PRICES)]
        frame["high"], frame["low"] = prices.max(axis=1), prices.min(axis=1)
        return validate_bars(frame, name=self.symbol)

    def summary(self) -> dict[str, Any]:
        """Return the report as JSON has it: counts of bars by rule, and the first few findings of each."""
        kept = self.series.times[self.kept]
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
    single = ("not_finite", "non_positive_price", "negative_volume", "broken_ohlc", "rounding")
    copies = ("duplicate", "restated", "partial_bar", "zero_volume")
    found = {name: getattr(rules, name)(series) for name in (*single, *copies)}
    kept = _kept(series, found, config.drop)
    # A bar that is dropped for want of volume was there: it is no gap.
    present = _kept(series, found, set(config.drop) - {"zero_volume"})
    if kept.any():
        found |= _of_sequence(series, kept, config.jump_z)
        # Where nothing was dropped for its volume, the two are the same bars.
        left = series[present]
        found["gap"] = _at(present, sequence.gap(left))
    hits = {name: found[name] for name in RULES if name in found and len(found[name])}
    return Report(symbol, series, hits, kept, _score(len(series), hits), frame)


def _of_sequence(series: Series, kept: Mask, jump_z: float) -> dict[str, Hits]:
    left = series[kept]
    found = {
        name: getattr(sequence, name)(left) for name in ("out_of_order", "off_grid", "drift", "irregular", "stale")
    }
    found["jump"], found["split"] = sequence.jump_and_split(left, jump_z)
    return {name: _at(kept, hits) for name, hits in found.items()}


def _at(looked_at: Mask, hits: Hits) -> Hits:
    """Return hits of a part of the series with rows of the whole."""
    return replace(hits, rows=np.flatnonzero(looked_at)[hits.rows])


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
    bars = rows + (hits["gap"].total if "gap" in hits else 0)
    return float(score({name: np.array([found.total]) for name, found in hits.items()}, np.array([bars]))[0])


def score(broken: Mapping[str, Any], bars: Any) -> Any:
    """Return the score of several series, or of several days of one; see the module.

    Parameters
    ----------
    broken
        Rule → how many bars break it, an array of shape (n,).
    bars
        How many there are or should be, each above 0; shape (n,).

    Returns
    -------
    ndarray
        0 to 100, shape (n,).
    """
    lost = np.zeros(len(bars))
    for name, rule in RULES.items():
        if name in broken:
            lost += np.minimum(rule.cap, rule.weight * 100 * broken[name] / bars)
    return np.maximum(0.0, 100.0 - lost)
