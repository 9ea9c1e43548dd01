from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tradeloop.bars import COLUMNS, CONTEXT_COLUMNS, PRICES, TIME, known_close, to_times, validate_bars
from tradeloop.calendars import session_closes
from tradeloop.errors import ConfigError, DataError
from tradeloop.sources import bundled as module
from tradeloop.sources.bundled import CATALOGUE

ROWS = {"AAPL": 3270, "IBM": 3270, "MSFT": 3270, "GOOG": 2148, "SP500": 5031, "NASDAQ": 5031, "AAPL_1D": 11503}
ROWS |= {"AAPL_1H": 3478, "AAPL_1M": 1595, "EURUSD": 6225, "BTCUSD": 8721}
CONTEXT = ["SP500", "NASDAQ", "VIX", "WTI"]
NEW_YORK = "America/New_York"


def package_csv(symbol: str) -> pd.DataFrame:
    series = CATALOGUE[symbol]
    spec = importlib.util.find_spec(series.package)
    assert spec is not None and spec.submodule_search_locations is not None
    table = pd.read_csv(Path(spec.submodule_search_locations[0]) / series.file)
    return table if series.only is None else table[table[series.only[0]] == series.only[1]].reset_index(drop=True)


@pytest.mark.parametrize("symbol", ROWS)
def test_every_series_of_bars_reads(symbol: str, bundled) -> None:
    series = CATALOGUE[symbol]
    bars = bundled(series.calendar, series.interval).read(symbol)
    assert list(bars.columns) == list(COLUMNS)
    assert bars.dtypes.astype(str).tolist() == [TIME] + ["float64"] * 5
    assert len(bars) == ROWS[symbol]


@pytest.mark.parametrize("symbol", ["AAPL", "IBM", "MSFT", "GOOG", "SP500", "NASDAQ", "EURUSD", "AAPL_1H", "AAPL_1M"])
def test_all_but_the_broken_series_are_good_bars_as_they_are(symbol: str, bundled) -> None:
    series = CATALOGUE[symbol]
    validate_bars(bundled(series.calendar, series.interval).read(symbol), name=symbol)


def test_daily_bars_are_stamped_with_their_sessions_close(bundled) -> None:
    times = bundled().read("AAPL")["timestamp"].dt.tz_convert(NEW_YORK)
    dates = pd.DatetimeIndex(package_csv("AAPL")["Date"])
    assert (times.dt.date == dates.date).all()
    early = times[times.dt.hour < 16].dt.strftime("%Y-%m-%d %H:%M").tolist()
    assert "2012-11-23 13:00" in early and "2012-07-03 13:00" in early and "2012-12-24 13:00" in early
    assert len(early) == 29  # about two a year
    assert times.dt.hour.isin([13, 16]).all()


def test_splits_and_dividends_leave_no_jump(bundled) -> None:
    """AAPL was split 2:1 on 2005-02-28, MSFT on 2003-02-18 and paid $3 on 2004-11-15; IBM pays each quarter."""
    for symbol, date in (("AAPL", "2005-02-28"), ("MSFT", "2003-02-18"), ("MSFT", "2004-11-15")):
        raw = package_csv(symbol)
        row = raw.index[raw["Date"] == date][0]
        bars = bundled().read(symbol)
        close = bars["close"].to_numpy()
        assert abs(np.log(raw["Close"][row] / raw["Close"][row - 1])) > 0.08, "the raw series jumps"
        assert abs(np.log(close[row] / close[row - 1])) < 0.04
        # Within one bar only ratios are seen, and those are untouched.
        np.testing.assert_allclose(bars["high"] / bars["low"], raw["High"] / raw["Low"], rtol=1e-12)
    raw, ibm = package_csv("IBM"), bundled().read("IBM")
    np.testing.assert_allclose(ibm["close"], raw["Adj Close"], rtol=1e-12)
    total_return = np.log(ibm["close"].iloc[-1] / ibm["close"].iloc[0])
    price_return = np.log(raw["Close"].iloc[-1] / raw["Close"].iloc[0])
    assert 0.1 < total_return - price_return < 0.3  # thirteen years of 1 to 2%


def test_volume_is_adjusted_against_the_price(bundled) -> None:
    raw, bars = package_csv("AAPL"), bundled().read("AAPL")
    turnover = raw["Close"] * raw["Volume"]
    np.testing.assert_allclose(bars["close"] * bars["volume"], turnover, rtol=1e-12)
    ratio = bars["volume"] / raw["Volume"]
    split = raw["Date"].searchsorted("2005-02-28")
    assert ratio[split - 1] / ratio[split] == pytest.approx(2, rel=1e-9)


def test_hourly_bars_of_new_york_close_within_their_session(bundled) -> None:
    bars = bundled("XNYS", "1h").read("AAPL_1H")
    local = bars["timestamp"].dt.tz_convert(NEW_YORK)
    assert set(local.dt.strftime("%H:%M")) == {"10:30", "11:30", "12:30", "13:30", "14:30", "15:30", "16:00"}
    days = local.dt.tz_localize(None).dt.normalize().to_numpy(dtype="datetime64[us]")
    assert (to_times(bars["timestamp"]) <= session_closes("XNYS", days)).all()


def test_the_bar_that_had_not_closed_when_the_file_was_taken_is_left_out(bundled) -> None:
    for symbol, interval, last in (
        ("AAPL_1D", "1d", "2026-08-05 20:00"),
        ("AAPL_1H", "1h", "2026-08-05 20:00"),
        ("AAPL_1M", "1m", "2026-08-06 14:05"),
    ):
        raw = package_csv(symbol)
        assert raw["close"].iloc[-1] == pytest.approx(314.26, abs=1e-4)
        bars = bundled("XNYS", interval).read(symbol)
        assert str(bars["timestamp"].iloc[-1]) == f"{last}:00+00:00"
        assert len(bars) == len(raw) - 1


def test_euro_bars_stamped_13_00_hold_the_winter_payrolls_of_13_30(bundled) -> None:
    bars = bundled("24/5", "1h").read("EURUSD").set_index("timestamp")
    width = np.log(bars["high"] / bars["low"])
    for day, close in (
        ("2017-01-06", "14:00"),
        ("2017-06-02", "13:00"),
        ("2017-07-07", "13:00"),
        ("2017-09-01", "13:00"),
    ):
        assert width.loc[day].idxmax() == pd.Timestamp(f"{day} {close}", tz="UTC")


def test_bitcoin_keeps_what_the_file_has_for_the_check_to_find(bundled) -> None:
    bars = bundled("24/7", "15m").read("BTCUSD")
    assert bars["timestamp"].duplicated().sum() == 32
    assert (bars["volume"] == 0).sum() == 2084
    assert not bars["timestamp"].is_monotonic_increasing
    assert str(bars["timestamp"].iloc[0]) == "2021-09-27 14:00:00+00:00"  # opened at 14:45 in London


@pytest.mark.parametrize("name", CONTEXT)
def test_context_is_known_when_it_was_known(name: str, bundled) -> None:
    context = bundled().read_context(name)
    assert list(context.columns) == list(CONTEXT_COLUMNS)
    assert context.dtypes.astype(str).tolist() == [TIME, TIME, "float64"]
    assert context["close"].notna().all()
    assert context["timestamp"].is_monotonic_increasing and context["known_at"].is_monotonic_increasing
    day = context["timestamp"].dt.tz_convert(NEW_YORK).dt.date
    known = context["known_at"].dt.tz_convert(NEW_YORK)
    delay = context["known_at"] - context["timestamp"]
    if name == "WTI":
        assert (known.dt.date > day).all() and known.dt.hour.between(12, 16).all()
    else:
        assert (delay == pd.Timedelta(0)).all()
        expected = {"16:15", "13:15"} if name == "VIX" else {"16:00", "13:00"}
        assert set(known.dt.strftime("%H:%M")) == expected


def test_fred_series_drop_their_missing_days(bundled) -> None:
    assert (package_csv("WTI")["DCOILWTICO"] == ".").sum() == 290
    assert len(bundled().read_context("WTI")) == 8611 - 290
    assert len(bundled().read_context("VIX")) == 1305 - 46


@pytest.mark.parametrize("name", ["SP500", "WTI"])
def test_bars_never_see_context_from_their_future(name: str, bundled) -> None:
    """Against a brute-force oracle: for each bar, walk over all context rows."""
    bars = bundled().read("IBM").iloc[::97]
    context = bundled().read_context(name)
    times = to_times(bars["timestamp"])
    joined = known_close(times, context)
    known, at = to_times(context["known_at"]), to_times(context["timestamp"])
    close = context["close"].to_numpy()
    for time, value in zip(times, joined, strict=True):
        candidates = [(at[i], close[i]) for i in range(len(at)) if known[i] <= time]
        assert value == max(candidates)[1]
    # What a bar sees of its own day: the index's close, and not the oil price.
    same_day = pd.Series(context["close"].to_numpy(), index=context["timestamp"].dt.tz_convert(NEW_YORK).dt.date)
    own = same_day.reindex(bars["timestamp"].dt.tz_convert(NEW_YORK).dt.date).to_numpy()
    assert (joined == own).mean() > 0.99 if name == "SP500" else (joined == own).mean() < 0.1


def test_a_changed_file_is_named_with_both_hashes(bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = CATALOGUE["EURUSD"]
    folder = tmp_path / source.package
    (folder / source.file).parent.mkdir(parents=True)
    (folder / "__init__.py").touch()
    original = Path(importlib.util.find_spec(source.package).submodule_search_locations[0]) / source.file
    content = original.read_bytes()
    (folder / source.file).write_bytes(content.replace(b"1.05236", b"1.05237", 1))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DataError, match=f"{source.file} has changed: expected SHA-256 {source.sha256}, got [0-9a-f]{{64}}"
    ):
        bundled("24/5", "1h").read("EURUSD")
    (folder / source.file).write_bytes(content)
    assert len(bundled("24/5", "1h").read("EURUSD")) == 6225
    (folder / source.file).unlink()
    with pytest.raises(DataError, match=f"{source.file} is missing from the installed package"):
        bundled("24/5", "1h").read("EURUSD")


def test_a_package_that_is_not_installed_is_named(bundled, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(CATALOGUE["EURUSD"], package="no_such_package_here")
    monkeypatch.setitem(module.CATALOGUE, "EURUSD", absent)
    with pytest.raises(DataError, match="the package no_such_package_here is not installed"):
        bundled("24/5", "1h").read("EURUSD")


def test_packages_are_not_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from tradeloop.config import load_params;"
        "from tradeloop.sources import open_source;"
        "market = load_params(Path('params.yaml')).markets['eurusd_hourly'];"
        "open_source(market, root=Path(), seed=0).read('EURUSD');"
        "sys.exit(bool({'gym_anytrading', 'gymnasium', 'exchange_calendars'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize(
    ("calendar", "interval", "symbol", "error", "message"),
    [
        ("XNYS", "1d", "TSLA", DataError, "no bundled series is called 'TSLA'; these are: AAPL, IBM"),
        ("XNYS", "1d", "VIX", DataError, "VIX has closes only"),
        ("XNYS", "1d", "AAPL_1H", ConfigError, "AAPL_1H has 1h bars on XNYS, the market says 1d on XNYS"),
        ("24/7", "1h", "EURUSD", ConfigError, "EURUSD has 1h bars on 24/5, the market says 1h on 24/7"),
    ],
)
def test_wrong_questions_are_answered(calendar, interval, symbol, error, message, bundled) -> None:
    with pytest.raises(error, match=message):
        bundled(calendar, interval).read(symbol)


def test_a_stock_is_no_context(bundled) -> None:
    with pytest.raises(DataError, match="AAPL is no context series; these are: SP500, NASDAQ, VIX, WTI"):
        bundled().read_context("AAPL")


def test_prices_keep_their_order_within_a_bar(bundled) -> None:
    raw, bars = package_csv("MSFT"), bundled().read("MSFT")
    names = [name.capitalize() for name in PRICES]
    np.testing.assert_array_equal(np.sign(raw[names].diff(axis=1)), np.sign(bars[list(PRICES)].diff(axis=1)))
