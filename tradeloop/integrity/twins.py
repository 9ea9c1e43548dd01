"""One asset under two names: series whose returns are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tradeloop.bars import Floats, Times
from tradeloop.integrity.report import Report
from tradeloop.integrity.series import Hits

LEAST = 60  # common returns; fewer can agree by chance


@dataclass(frozen=True)
class Twin:
    """Two symbols whose log returns over their common bars correlate as if they were one asset's."""

    symbol: str
    other: str
    correlation: float
    common: Times


def find_twins(reports: Sequence[Report], least: float) -> list[Twin]:
    """Return the pairs of symbols whose returns correlate by at least `least`, each later symbol beside the first.

    1. Closes of the kept bars are put side by side by their time; a return is that of one bar of the panel to the next,
       where a symbol has both.
    2. Correlations of all pairs, each over the returns that both have, come from sums over the panel.
    3. Where fewer than `LEAST` are common, or one does not move, there is none.

    Adjusting by a factor, or quoting in another unit, changes nothing.
    """
    if len(reports) < 2:
        return []
    panel = pd.concat({report.symbol: _closes(report) for report in reports}, axis=1).sort_index()
    returns = np.diff(np.log(panel.to_numpy()), axis=0)
    correlation = _correlations(returns)
    times = panel.index.to_numpy(dtype="datetime64[us]")
    twins = []
    for later, symbol in enumerate(panel.columns):
        alike = np.flatnonzero(correlation[later, :later] >= least)
        if len(alike):
            common = np.isfinite(returns[:, [alike[0], later]]).all(axis=1)
            other = panel.columns[alike[0]]
            twins.append(Twin(symbol, other, float(correlation[later, alike[0]]), times[1:][common]))
    return twins


def _closes(report: Report) -> pd.Series[float]:
    kept = report.kept
    closes = pd.Series(report.series.prices[3, kept], index=report.series.times[kept])
    closes = closes[~closes.index.duplicated(keep="last")]
    return closes.where(closes > 0)  # what is not positive is another rule's matter


def _correlations(returns: Floats) -> Floats:
    """Return the correlation of each two columns over the rows in which both are finite, NaN where there is none."""
    there = np.isfinite(returns).astype(np.float64)
    filled = np.where(there > 0, returns, 0.0)
    count = there.T @ there
    total, square = filled.T @ there, (filled**2).T @ there  # of the row's column over what is common with the other's
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = filled.T @ filled - total * total.T / count
        variance = square - total**2 / count
        correlation = covariance / np.sqrt(variance * variance.T)
    # What is left of a flat series' variance is rounding.
    moving = (variance > 1e-12 * square) & (variance.T > 1e-12 * square.T)
    return np.where((count >= LEAST) & moving, correlation, np.nan)


def with_twins(reports: Sequence[Report], least: float) -> list[Report]:
    """Return the reports, those of twins with a finding of the rule ``twin``: at the first common bar, over all."""
    twins = {twin.symbol: twin for twin in find_twins(reports, least)}
    return [r.also("twin", _hits(r, twins[r.symbol])) if r.symbol in twins else r for r in reports]


def _hits(report: Report, twin: Twin) -> Hits:
    count = len(twin.common)
    row = np.flatnonzero(report.series.times == twin.common[0])[:1].astype(np.intp)
    text = f"returns are those of {twin.other}: correlation {twin.correlation:.6f} over {count} bars"
    return Hits(row, twin.common[:1], np.array([count], dtype=np.intp), twin.common, lambda _: text)
