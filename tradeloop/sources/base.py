"""What every source of bars is: one abstract class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar

import pandas as pd

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

    def __init__(self, market: Market, *, root: Path, seed: int) -> None:
        self.market = market
        self.root = root
        self.seed = seed

    @abstractmethod
    def read(self, symbol: str) -> pd.DataFrame:
        """Return a symbol's raw bar frame: `bars.COLUMNS`, close-stamped in UTC, adjusted.

        Rows stand as the source has them: order, duplicates and broken values are kept, for `integrity` to find.

        Raises
        ------
        DataError
            If there is no such series, or it cannot be read.
        """

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
