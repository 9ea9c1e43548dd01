"""What bars get from data beyond them: in the pipeline from its cleaned files, in a running loop from the market's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tradeloop.bars import Floats, Times
from tradeloop.config import Market, Params, parse_interval
from tradeloop.config.inputs import InputKind
from tradeloop.errors import DataError
from tradeloop.inputs.alignment import align
from tradeloop.inputs.contract import KINDS, input_columns
from tradeloop.inputs.files import canonical, file_of, read_kind
from tradeloop.layout import Layout

Frames = Mapping[InputKind, Mapping[str, pd.DataFrame]]


def read_sources(market: Market, root: Path) -> Frames:
    """Return every declared kind of every symbol as canonical frames, from the market's own files.

    Raises
    ------
    ConfigError
        A declared column is none of its kind's.
    DataError
        A file is missing or breaks a rule.
    """
    input_columns(market)
    return {
        kind: {symbol: read_kind(kind, market, root, symbol) for symbol in market.symbols} for kind in market.inputs
    }


def read_stored(folder: Path, market: Market, *, root: Path) -> Frames:
    """Return what a stage wrote to ``<folder>/inputs/<kind>/<symbol>.parquet``, held to the rules again."""
    return {
        kind: {symbol: _stored(folder / "inputs" / kind / f"{symbol}.parquet", kind, root) for symbol in market.symbols}
        for kind in market.inputs
    }


def _stored(path: Path, kind: InputKind, root: Path) -> pd.DataFrame:
    shown = str(path.relative_to(root))
    if not path.is_file():
        raise DataError(f"{shown} is missing")
    return canonical(kind, pd.read_parquet(path), shown=shown)


def read_inputs(layout: Layout, params: Params, symbol: str, times: Times) -> dict[str, Floats]:
    """Return `Bars.inputs` of a symbol's bars from ``data/clean/inputs``: one array a declared column.

    Parameters
    ----------
    times
        The bars' closes, oldest first.
    """
    frames = {}
    for kind in params.active.inputs:
        frames[kind] = _stored(layout.clean / "inputs" / kind / f"{symbol}.parquet", kind, layout.root)
    return join(params.active, frames, times)


def join(
    market: Market, frames: Mapping[InputKind, pd.DataFrame], times: Times, *, since: np.datetime64 | None = None
) -> dict[str, Floats]:
    """Return the declared columns at each close; see `tradeloop.inputs.alignment.align`."""
    wanted = input_columns(market)
    values: dict[str, Floats] = {}
    for kind, rows in frames.items():
        values |= align(kind, rows, times, since=since, max_age=_max_age(market, kind))
    return {name: column for name, column in values.items() if name in wanted}


def _max_age(market: Market, kind: InputKind) -> timedelta | None:
    span = market.inputs[kind].max_age or KINDS[kind].max_age
    return None if span is None else parse_interval(span)


class InputFeed:
    """The market's own files of data beyond bars, read again when they change; one that is broken stays as it was."""

    def __init__(self, market: Market, root: Path) -> None:
        self._market = market
        self._root = root
        self._frames: dict[tuple[InputKind, str], pd.DataFrame] = {}
        self._seen: dict[tuple[InputKind, str], Hashable] = {}

    def refresh(self) -> dict[str, str]:
        """Read what has changed; return why something was not taken, by ``symbol kind``."""
        problems = {}
        for kind in self._market.inputs:
            for symbol in self._market.symbols:
                try:
                    stamp = self._stamp(kind, symbol)
                    if self._seen.get((kind, symbol)) != stamp:
                        self._frames[kind, symbol] = read_kind(kind, self._market, self._root, symbol)
                        self._seen[kind, symbol] = stamp
                except DataError as error:
                    problems[f"{symbol} {kind}"] = str(error)
        return problems

    def version(self, symbol: str) -> Hashable:
        """Return a value that changes when any of the symbol's data has been read anew."""
        return tuple(self._seen.get((kind, symbol)) for kind in self._market.inputs)

    def known(self, symbol: str, times: Times, *, since: np.datetime64 | None = None) -> dict[str, Floats]:
        """Return `Bars.inputs` for bars with these closes, `since` being the close before the first.

        A kind that could not be read yet is not known: NaN.
        """
        kinds = self._market.inputs
        frames = {kind: self._frames[kind, symbol] for kind in kinds if (kind, symbol) in self._frames}
        missing = {name: np.full(len(times), np.nan) for name in input_columns(self._market)}
        return missing | join(self._market, frames, times, since=since)

    def _stamp(self, kind: InputKind, symbol: str) -> Hashable:
        path = file_of(self._market.inputs[kind], self._root, symbol, name=kind)
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"inputs.{kind} of {symbol}: {path.name}: {error.strerror}") from None
        return found.st_ino, found.st_size, found.st_mtime_ns
