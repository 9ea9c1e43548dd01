"""What every source of bars is: one abstract class."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, TIME, to_times
from tradeloop.config import Market
from tradeloop.errors import DataError


class Source(ABC):
    """Reads the series of one market.

    An implementation is a module of this package that defines one subclass; the module's name is what a market's
    ``source`` says.

    Parameters
    ----------
    market
        Which symbols, on which calendar, at which interval.
    root
        The project root; relative paths in `market` start there.
    seed
        For sources that draw random numbers.
    """

    name: ClassVar[str]
    fixed: ClassVar[bool] = False
    """Whether its series never change, so that there is nothing to ask for again."""

    def __init__(self, market: Market, *, root: Path, seed: int) -> None:
        self.market = market
        self.root = root
        self.seed = seed
        self._again: tuple[str, Hashable, pd.DataFrame] | None = None

    @abstractmethod
    def read(self, symbol: str) -> pd.DataFrame:
        """Return a symbol's raw bar frame: `bars.COLUMNS`, close-stamped in UTC, adjusted.

        Rows stand as the source has them: order, duplicates and broken values are kept, for `integrity` to find.

        Raises
        ------
        DataError
            If there is no such series, or it cannot be read.
        """

    def fetch(self, symbol: str, start: np.datetime64, end: np.datetime64) -> pd.DataFrame:
        """Return the bars that a symbol has now with start ≤ close ≤ end (UTC), as `read` gives them; asks once.

        This reads the whole series, again only if it has changed. A source behind a network overrides it, to ask for
        that stretch alone.

        Raises
        ------
        DataError
            If it cannot be read, for now or for good.
        """
        version = self.version(symbol)
        if self._again is None or self._again[:2] != (symbol, version):
            self._again = (symbol, version, self.read(symbol))
        frame = self._again[2]
        times = to_times(frame["timestamp"])
        return frame[(times >= start) & (times <= end)].reset_index(drop=True)

    def refetch(
        self,
        symbol: str,
        start: np.datetime64,
        end: np.datetime64,
        *,
        attempts: int = 3,
        backoff: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> pd.DataFrame:
        """Return what `fetch` does, asked up to `attempts` times; of a fixed source, and without attempts, no bars.

        Parameters
        ----------
        backoff
            Seconds before the second attempt; doubles with each further one.

        Raises
        ------
        DataError
            The last attempt's.
        """
        if self.fixed or attempts < 1:
            return pd.DataFrame({name: np.empty(0) for name in COLUMNS}).astype({"timestamp": TIME})
        for attempt in range(attempts - 1):
            try:
                return self.fetch(symbol, start, end)
            except DataError:
                sleep(backoff * 2**attempt)
        return self.fetch(symbol, start, end)

    def version(self, symbol: str) -> Hashable:
        """Return a value that changes when the symbol's series does, without reading it; None: it never does.

        Raises
        ------
        DataError
            If there is no such series.
        """
        del symbol
        return None

    def context_version(self, name: str) -> Hashable:
        """Return what `version` does, for a context series."""
        del name
        return None

    def read_context(self, name: str) -> pd.DataFrame:
        """Return a context frame: `bars.CONTEXT_COLUMNS`, increasing in time, without missing values.

        Raises
        ------
        DataError
            If there is no such series, or it cannot be read.
        """
        raise DataError(f"source {self.name!r} has no context series, {name!r} was asked for")
