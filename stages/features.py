"""Stage features: the feature row of every bar, known at the bar's close."""

from __future__ import annotations

from functools import partial

from stages._run import run
from tradeloop.compute.backend import open_backend
from tradeloop.compute.features import remove_others, update
from tradeloop.config import Params
from tradeloop.features import schema_for
from tradeloop.layout import Layout


def features(layout: Layout, params: Params) -> None:
    """Bring ``data/features/<symbol>/<period>.parquet`` up to the checked bars, context and inputs."""
    schema = schema_for(params)
    symbols = params.active.symbols
    remove_others(layout.features, symbols)
    with open_backend(params.compute) as backend:
        for kept in backend.map(partial(update, layout, params, schema), symbols):
            which = f", {kept.computed[0]} to {kept.computed[-1]}" if kept.computed else ""
            print(f"features: {kept.symbol}: {len(kept.computed)} of {kept.parts} parts computed{which}")


if __name__ == "__main__":
    run("features", features)
