"""Stage ingest: read the market's series from their source, as canonical raw bars."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from stages._run import run
from tradeloop.atomic import write_parquets
from tradeloop.config import Params
from tradeloop.errors import DataError
from tradeloop.inputs.reading import read_sources
from tradeloop.layout import Layout
from tradeloop.sources import open_source


def ingest(layout: Layout, params: Params) -> None:
    """Write one file a symbol, one a context series, and one a symbol for each kind of data beyond bars."""
    market, limits = params.active, params.ingest
    source = open_source(market, root=layout.sources, seed=params.seed, streamed=layout.streamed(params.market))
    bars = {symbol: _cut(symbol, source.read(symbol), limits.start, limits.end) for symbol in market.symbols}
    # Context reaches back before the first bar, which can know it.
    context = {name: _cut(name, source.read_context(name), None, limits.end) for name in market.context}
    inputs = read_sources(market, layout.sources)
    write_parquets(layout.raw / "bars", bars)
    write_parquets(layout.raw / "context", context)
    for kind, frames in inputs.items():
        write_parquets(layout.raw / "inputs" / kind, frames)
    named = {f"{symbol} {kind}": frame for kind, frames in inputs.items() for symbol, frame in frames.items()}
    for name, frame in {**bars, **context, **named}.items():
        print(f"ingest: {name}: {len(frame)} rows, {frame['timestamp'].min()} to {frame['timestamp'].max()}")


def _cut(name: str, frame: pd.DataFrame, start: datetime | None, end: datetime | None) -> pd.DataFrame:
    """Return the rows with start ≤ close ≤ end."""
    keep = pd.Series(True, index=frame.index)
    if start is not None:
        keep &= frame["timestamp"] >= _utc(start)
    if end is not None:
        keep &= frame["timestamp"] <= _utc(end)
    if not keep.any():
        raise DataError(f"{name} has no bars from ingest.start = {start} to ingest.end = {end}")
    return frame[keep].reset_index(drop=True)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


if __name__ == "__main__":
    run("ingest", ingest)
