"""A market's whole history in memory: bars, features and labels, of which a simulation shows only the past.

Features are prefix-invariant and labels carry their end, so a row computed over the whole history is the row that was
known at its bar's close; who reads the world reads up to the clock, never beyond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Bars, Times, to_times
from tradeloop.config import TARGETS, Params, parse_interval
from tradeloop.dataset import Matrix
from tradeloop.errors import DataError
from tradeloop.features import compute, schema_for
from tradeloop.inputs.reading import join, read_sources
from tradeloop.integrity import admit, check_context, inspect
from tradeloop.labels import compute_labels
from tradeloop.schema import Schema
from tradeloop.sources import open_source


@dataclass(frozen=True)
class World:
    """All that will ever have happened.

    Attributes
    ----------
    bars
        By symbol.
    matrix
        Every row with all features and labels, sorted by (timestamp, symbol): what training may use once its label
        has ended.
    times
        Distinct feature times (k,) at which at least one symbol has all features, UTC.
    symbols, rows
        For each of `times`, the symbols with a bar then and their feature rows; see `at`.
    """

    schema: Schema
    bars: Mapping[str, Bars]
    matrix: Matrix
    times: Times
    x: NDArray[np.float32]
    symbol: NDArray[np.object_]
    start: NDArray[np.intp]

    def at(self, step: int) -> slice:
        """Return the positions in `x` and `symbol` of the rows made at ``times[step]``."""
        return slice(int(self.start[step]), int(self.start[step + 1]))

    def known(self, now: np.datetime64, since: np.datetime64 | None = None) -> Matrix:
        """Return the matrix rows whose label had ended by `now`, and that were made at or after `since`."""
        keep = self.matrix.label_end <= now
        if since is not None:
            keep &= self.matrix.timestamp >= since
        return take(self.matrix, keep)


def take(matrix: Matrix, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Matrix:
    """Return the rows of `matrix` that a mask or positions name."""
    return Matrix(
        matrix.schema,
        np.ascontiguousarray(matrix.x[keep]),
        {target: values[keep] for target, values in matrix.y.items()},
        matrix.symbol[keep],
        matrix.timestamp[keep],
        matrix.label_end[keep],
    )


def build_world(params: Params, *, root: Path) -> World:
    """Read, check and compute the active market, as the stages do.

    Raises
    ------
    DataError
        A series fails its checks, or no row is complete.
    """
    market = params.active
    source = open_source(market, root=root, seed=params.seed)
    context = {name: check_context(source.read_context(name), file=name) for name in market.context}
    inputs = read_sources(market, root)
    bars = {}
    for symbol in market.symbols:
        found = inspect(
            symbol,
            source.read(symbol),
            calendar=market.calendar,
            interval=parse_interval(market.interval),
            config=params.check,
        )
        clean = Bars.from_frame(symbol, admit(found, params.check, file=symbol), context)
        rows = {kind: frames[symbol] for kind, frames in inputs.items()}
        bars[symbol] = replace(clean, inputs=join(market, rows, clean.timestamp))
    return assemble_world(params, bars)


def assemble_world(params: Params, bars: Mapping[str, Bars]) -> World:
    """Compute features and labels of clean bars."""
    schema = schema_for(params)
    parts = [_rows(symbol, series, schema, params) for symbol, series in bars.items()]
    frame = pd.concat([part[0] for part in parts], ignore_index=True)
    x = np.concatenate([part[1] for part in parts])
    order = frame.sort_values(["timestamp", "symbol"], kind="stable").index.to_numpy()
    frame, x = frame.iloc[order].reset_index(drop=True), x[order]
    complete = np.isfinite(x).all(axis=1)
    frame, x = frame[complete].reset_index(drop=True), np.ascontiguousarray(x[complete])
    if not len(frame):
        raise DataError(f"market {params.market} has no bar with all {len(schema)} features")
    timestamp, symbol = to_times(frame["timestamp"]), frame["symbol"].to_numpy(dtype=object)
    labels: dict[Any, Any] = {target: frame[target].to_numpy(dtype=np.float64) for target in TARGETS}
    ended = np.all([np.isfinite(values) for values in labels.values()], axis=0)
    whole = Matrix(schema, x, labels, symbol, timestamp, to_times(frame["label_end"]))
    times, first = np.unique(timestamp, return_index=True)
    return World(schema, bars, take(whole, ended), times, x, symbol, np.append(first, len(x)))


def _rows(symbol: str, bars: Bars, schema: Schema, params: Params) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    return compute_labels(bars, params.labels).assign(symbol=symbol), compute(bars, schema)
