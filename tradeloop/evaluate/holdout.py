"""The holdout, opened once: its rows, the bars behind them, and what the ensemble to be served forecasts for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats, Times
from tradeloop.baselines import Sample
from tradeloop.config import Labels, Params, Target
from tradeloop.dataset import load_matrix
from tradeloop.ensemble import Ensemble, Forecast
from tradeloop.inputs.reading import read_inputs
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.splits import read_splits

_YEAR = np.timedelta64(365 * 24 + 6, "h")


@dataclass(frozen=True)
class Holdout:
    """What is judged, and all that the judgement needs.

    Attributes
    ----------
    sample
        Symbols, times and labels of all rows of the training matrix, and which of them train and test.
    x
        Features of all rows, float32 (n, d).
    bars
        Clean bars by symbol, the whole series.
    ensemble, forecast
        The ensemble that will serve, and its forecast of the test rows.
    coverage
        Nominal coverage of the intervals.
    bars_per_year
        Distinct timestamps a year, measured over all rows.
    """

    market: str
    schema: Schema
    sample: Sample
    x: NDArray[np.float32]
    bars: Mapping[str, Bars]
    labels: Labels
    ensemble: Ensemble
    forecast: Forecast
    coverage: float
    bars_per_year: float

    @property
    def row(self) -> NDArray[np.intp]:
        """Positions of the holdout's rows (m,) in the training matrix."""
        return self.sample.test

    @property
    def symbol(self) -> NDArray[Any]:
        """Symbol of each holdout row (m,)."""
        return np.asarray(self.sample.symbol[self.row])

    @property
    def timestamp(self) -> Times:
        """Feature time of each holdout row (m,), UTC."""
        return np.asarray(self.sample.timestamp[self.row])

    def label(self, target: Target) -> Floats:
        """Return the labels of the holdout's rows (m,)."""
        return np.asarray(self.sample.y[target][self.row])


def open_holdout(layout: Layout, params: Params) -> Holdout:
    """Read matrix, splits, bars and ensemble, and forecast the holdout."""
    matrix = load_matrix(layout)
    _, split = read_splits(layout)
    spec = json.loads((layout.models / "stack" / "stack.json").read_text(encoding="utf-8"))
    matrix.schema.require(spec["schema"]["hash"], what="the ensemble")
    ensemble = Ensemble.load(layout.models / "trained", spec)
    sample = Sample(matrix.symbol, matrix.timestamp, matrix.label_end, matrix.y, split.train, split.test)
    return Holdout(
        market=params.market,
        schema=matrix.schema,
        sample=sample,
        x=matrix.x,
        bars=_read_bars(layout, params),
        labels=params.labels,
        ensemble=ensemble,
        forecast=ensemble.forecast(matrix.x[split.test]),
        coverage=float(spec["coverage"]),
        bars_per_year=bars_per_year(matrix.timestamp),
    )


def bars_per_year(timestamp: Times) -> float:
    """Return how many distinct times there are a year of 365.25 days, over the span of `timestamp`."""
    times = np.unique(timestamp)
    return float((len(times) - 1) / max((times[-1] - times[0]) / _YEAR, 1e-9))


def _read_bars(layout: Layout, params: Params) -> dict[str, Bars]:
    def read(kind: str, name: str) -> pd.DataFrame:
        return pd.read_parquet(layout.clean / kind / f"{name}.parquet")

    context = {name: read("context", name) for name in params.active.context}
    found = {}
    for symbol in params.active.symbols:
        bars = Bars.from_frame(symbol, read("bars", symbol), context)
        found[symbol] = replace(bars, inputs=read_inputs(layout, params, symbol, bars.timestamp))
    return found
