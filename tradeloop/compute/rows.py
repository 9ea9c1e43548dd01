"""Feature rows of one symbol as parquet: computed in runs of bounded length, written part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tradeloop.bars import Bars
from tradeloop.features.engine import Row, compute
from tradeloop.partitions import Part
from tradeloop.schema import Schema

BARS_AT_ONCE = 65_536
"""A run of parts that are computed together ends before it is longer, which bounds memory whatever the history."""

TIME = pa.timestamp("us", "UTC")


def part_rows(bars: Bars, wanted: Sequence[Part], schema: Schema, *, lookback: int) -> Iterator[tuple[Part, bytes]]:
    """Yield each wanted part as a parquet file.

    Parts that follow one another are computed together, from `lookback` bars before the first on: a row depends on no
    more, to the last bit, so how they are grouped changes nothing.
    """
    for run in _runs(wanted):
        start = max(run[0].start - lookback + 1, 0)
        rows = compute(bars[start : run[-1].stop], schema)
        for part in run:
            yield part, _parquet(bars, part, rows[part.start - start : part.stop - start], schema)


def _runs(wanted: Sequence[Part]) -> Iterator[list[Part]]:
    """Group parts that follow one another, up to `BARS_AT_ONCE` bars."""
    run: list[Part] = []
    for part in wanted:
        if run and (part.start != run[-1].stop or part.stop - run[0].start > BARS_AT_ONCE):
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def _parquet(bars: Bars, part: Part, rows: Row, schema: Schema) -> bytes:
    """Return symbol, timestamp, created and the schema's columns (float32), one row a bar, as a file."""
    closes = pa.array(bars.timestamp[part.start : part.stop].astype("datetime64[us]")).cast(TIME)
    symbol = pa.repeat(pa.scalar(bars.symbol), len(closes))
    block = np.asfortranarray(rows)
    buffer, size = pa.py_buffer(block.T), block.itemsize * len(block)
    values = [
        pa.Array.from_buffers(pa.float32(), len(block), [None, buffer.slice(column * size, size)])
        for column in range(len(schema))
    ]
    table = pa.Table.from_arrays(
        [symbol, closes, closes, *values], names=["symbol", "timestamp", "created", *schema.names]
    )
    sink = pa.BufferOutputStream()
    keys = ["symbol", "timestamp", "created"]
    # Features are near random to a compressor, and nothing is looked up by their value: the cheapest settings.
    pq.write_table(table, sink, compression="snappy", use_dictionary=["symbol"], write_statistics=keys)
    content: bytes = sink.getvalue().to_pybytes()
    return content
