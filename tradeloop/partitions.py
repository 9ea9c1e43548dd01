"""Where feature rows lie: ``<symbol>/<period>.parquet``, a year a file where bars are daily or longer, else a month.

A row is in the file of the period that its event time is in, so a file's name says which times it may hold, and the
files of a symbol in order of name are in order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tradeloop.bars import Times

Unit = Literal["Y", "M"]
DAY = timedelta(days=1)


class Part(NamedTuple):
    """The rows ``start`` to ``stop`` of a symbol, which are those of one period."""

    name: str
    start: int
    stop: int


def unit_of(interval: timedelta) -> Unit:
    """Return whether bars of `interval` are kept by year or by month."""
    return "Y" if interval >= DAY else "M"


def parts(times: Times, interval: timedelta) -> list[Part]:
    """Return the parts of a symbol's bars with these closes (UTC, increasing), oldest first.

    Examples
    --------
    >>> closes = np.array(["2024-12-30T21", "2024-12-31T21", "2025-01-02T21"], dtype="datetime64[us]")
    >>> [part.name for part in parts(closes, DAY)]
    ['2024', '2025']
    """
    periods = times.astype(f"datetime64[{unit_of(interval)}]")
    changes = np.flatnonzero(periods[1:] != periods[:-1]) + 1
    edges = [0, *changes.tolist(), len(periods)] if len(periods) else []
    return [Part(str(periods[start]), start, stop) for start, stop in pairwise(edges)]


def symbols(folder: Path) -> list[str]:
    """Return the symbols that have rows below `folder`, sorted."""
    return sorted({path.parent.name for path in folder.glob("*/*.parquet")})


def files(folder: Path, symbol: str) -> list[Path]:
    """Return a symbol's files, oldest first."""
    return sorted((folder / symbol).glob("*.parquet"))


def until(paths: Sequence[Path], moment: np.datetime64) -> list[Path]:
    """Return those of a symbol's files that may hold rows at or before `moment` (UTC), oldest first."""
    text = str(moment.astype("datetime64[us]"))
    return [path for path in paths if path.stem <= text[: len(path.stem)]]
