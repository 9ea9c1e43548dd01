"""Stage labels: direction, return and range of every bar, each with the time at which it ends."""

from __future__ import annotations

import pandas as pd

from stages._run import run
from tradeloop.atomic import write_parquet
from tradeloop.bars import Bars
from tradeloop.config import Params
from tradeloop.labels import compute_labels
from tradeloop.layout import Layout


def labels(layout: Layout, params: Params) -> None:
    """Write ``data/labels/<symbol>.parquet`` from the checked bars."""
    for symbol in params.active.symbols:
        bars = Bars.from_frame(symbol, pd.read_parquet(layout.clean / "bars" / f"{symbol}.parquet"))
        write_parquet(layout.labels / f"{symbol}.parquet", compute_labels(bars, params.labels))


if __name__ == "__main__":
    run("labels", labels)
