"""Stage features: the feature row of every bar, known at the bar's close.

Symbols are computed one after another: a market of this size takes a fraction of a second, less than a pool's start.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from stages._run import run
from tradeloop.atomic import write_parquet
from tradeloop.bars import TIME, Bars
from tradeloop.config import Params
from tradeloop.features import compute, schema_for
from tradeloop.inputs.reading import read_inputs
from tradeloop.layout import Layout
from tradeloop.schema import Schema


def feature_frame(bars: Bars, schema: Schema) -> pd.DataFrame:
    """Return symbol, timestamp, created and the schema's columns (float32), one row a bar."""
    frame = pd.DataFrame(compute(bars, schema), columns=list(schema.names))
    closes = pd.Series(bars.timestamp).dt.tz_localize("UTC").astype(TIME)
    frame.insert(0, "symbol", bars.symbol)
    frame.insert(1, "timestamp", closes)
    frame.insert(2, "created", closes)
    return frame


def features(layout: Layout, params: Params) -> None:
    """Write ``data/features/<symbol>.parquet`` from the checked bars, context and inputs."""
    schema = schema_for(params)
    folder = layout.clean
    context = {name: pd.read_parquet(folder / "context" / f"{name}.parquet") for name in params.active.context}
    for symbol in params.active.symbols:
        bars = Bars.from_frame(symbol, pd.read_parquet(folder / "bars" / f"{symbol}.parquet"), context)
        bars = replace(bars, inputs=read_inputs(layout, params, symbol, bars.timestamp))
        write_parquet(layout.features / f"{symbol}.parquet", feature_frame(bars, schema))


if __name__ == "__main__":
    run("features", features)
