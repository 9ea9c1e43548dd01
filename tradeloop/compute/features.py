"""Keeps a symbol's feature files up with its bars: what has not changed is not computed again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tradeloop.atomic import write_bytes
from tradeloop.bars import Bars
from tradeloop.compute.manifest import Made, Manifest, recipe, source_digest
from tradeloop.compute.rows import part_rows
from tradeloop.config import Params, parse_interval
from tradeloop.features.engine import schema_lookback
from tradeloop.inputs.reading import read_inputs
from tradeloop.layout import Layout
from tradeloop.partitions import parts
from tradeloop.schema import Schema


@dataclass(frozen=True)
class Kept:
    """What became of a symbol's parts: the names of those that were computed, and how many there are."""

    symbol: str
    computed: tuple[str, ...]
    parts: int


def update(layout: Layout, params: Params, schema: Schema, symbol: str) -> Kept:
    """Bring ``data/features/<symbol>`` up to its checked bars, context and inputs."""
    return write_parts(layout.features / symbol, read_bars(layout, params, symbol), schema)


def read_bars(layout: Layout, params: Params, symbol: str) -> Bars:
    """Return a symbol's checked bars with the context and the inputs known at each."""
    clean = layout.clean
    context = {name: pd.read_parquet(clean / "context" / f"{name}.parquet") for name in params.active.context}
    bars = Bars.from_frame(symbol, pd.read_parquet(clean / "bars" / f"{symbol}.parquet"), context)
    return replace(bars, inputs=read_inputs(layout, params, symbol, bars.timestamp))


def write_parts(folder: Path, bars: Bars, schema: Schema) -> Kept:
    """Write the parts of `bars` that are not there yet as they should be, and remove what is no part of them.

    A part depends on its own bars and on those that its first row looks back on. A run that is killed anywhere leaves
    whole files, and a manifest that vouches for none of the new ones.
    """
    lookback = schema_lookback(schema, tuple(bars.context))
    wanted = parts(bars.timestamp, parse_interval(schema.interval))
    before, now = Manifest.load(folder), recipe(schema)
    sources = {part.name: source_digest(bars[max(part.start - lookback + 1, 0) : part.stop]) for part in wanted}
    made = {
        part.name: before.parts[part.name]
        for part in wanted
        if before.holds(folder, part.name, recipe=now, source=sources[part.name])
    }
    stale = [part for part in wanted if part.name not in made]
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in part_rows(bars, stale, schema, lookback=lookback):
        # Not flushed: after a power failure the manifest's digest finds what is broken.
        write_bytes(folder / f"{part.name}.parquet", content, flush=False)
        made[part.name] = Made(sources[part.name], hashlib.sha256(content).hexdigest())
    _sweep(folder, {f"{part.name}.parquet" for part in wanted} | {"manifest.json"})
    after = Manifest(now, made)
    if after != before:
        after.save(folder)
    return Kept(bars.symbol, tuple(part.name for part in stale), len(wanted))


def remove_others(folder: Path, symbols: Collection[str]) -> None:
    """Remove whatever in `folder` is not of these symbols."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in symbols:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sweep(folder: Path, wanted: Collection[str]) -> None:
    """Remove what a killed run, or an older layout, has left."""
    for path in folder.iterdir():
        if path.name not in wanted:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
