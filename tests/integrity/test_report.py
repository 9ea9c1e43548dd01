from __future__ import annotations

import json
import re
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.raw_bars import FILE, HOUR, PARAMS, START, counts, look, real, scale, series
from tradeloop.bars import COLUMNS, PRICES, from_times, to_times, validate_bars
from tradeloop.calendars import expected_closes
from tradeloop.config import Check
from tradeloop.errors import DataError
from tradeloop.integrity import RULES, admit, check_context, print_table
from tradeloop.sources import open_source


def test_a_good_series_scores_100_and_is_left_as_it_is() -> None:
    frame = series()
    report = look(frame)
    assert (report.score, counts(report), report.blocking) == (100.0, {}, [])
    pd.testing.assert_frame_equal(admit(report, Check(), file=FILE), frame)


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("close", np.nan, "not_finite"),
        ("volume", np.inf, "not_finite"),
        ("low", -3.0, "non_positive_price"),
        ("open", 0.0, "non_positive_price"),
        ("volume", -1.0, "negative_volume"),
        ("high", 50.0, "broken_ohlc"),
        ("open", 200.0, "broken_ohlc"),
    ],
)
def test_a_broken_bar_stops_the_check_with_file_symbol_time_and_rule(column: str, value: float, rule: str) -> None:
    frame = series()
    frame.loc[[7, 9], column] = value
    report = look(frame)
    assert rule in report.blocking and report.count(rule) == 2
    with pytest.raises(
        DataError, match=rf"^{FILE}: X at 2024-01-01T08:00:00Z breaks {rule}: .*; 2 such bars"
    ) as caught:
        admit(report, Check(), file=FILE)
    assert f"{column}={float(value)}" in str(caught.value)


def test_all_that_blocks_is_named() -> None:
    frame = series()
    frame.loc[3, "volume"] = -1
    frame.loc[5, "close"] = np.nan
    with pytest.raises(DataError, match=r"breaks not_finite: .*; 1 such bars; also negative_volume$"):
        admit(look(frame), Check(), file=FILE)


def test_bars_out_of_order_stop_the_check() -> None:
    frame = series()
    frame = frame.iloc[[*range(10), 11, 10, *range(12, len(frame))]].reset_index(drop=True)
    report = look(frame)
    assert counts(report)["out_of_order"] == 1
    with pytest.raises(
        DataError, match="X at 2024-01-01T11:00:00Z breaks out_of_order: stands after the bar of 2024-01-01T12"
    ):
        admit(report, Check(), file=FILE)


def test_duplicates_are_dropped_and_the_last_copy_stays() -> None:
    frame = series()
    early = frame.iloc[[20]].assign(volume=0.5)
    frame = pd.concat([frame[:20], early, frame[20:31], frame.iloc[[30]], frame[31:]], ignore_index=True)
    report = look(frame)
    assert counts(report) == {"duplicate": 2, "restated": 1}
    assert [f.text for f in report.findings("duplicate")] == ["another copy follows", "an identical copy follows"]
    restated = report.findings("restated")
    assert [f.time for f in restated] == ["2024-01-01T21:00:00Z"]
    assert restated[0].text == f"volume 0.5 became {float(series().loc[20, 'volume'])!r}"
    pd.testing.assert_frame_equal(admit(report, Check(), file=FILE), series())


def test_duplicates_stop_the_check_where_they_may_not_be_dropped() -> None:
    frame = pd.concat([series()[:3], series()[2:]], ignore_index=True)
    with pytest.raises(DataError, match="breaks duplicate: an identical copy follows; 1 such bars"):
        admit(look(frame, drop=[]), Check(drop=[]), file=FILE)


def test_a_quote_among_the_bars_and_the_bar_it_interrupts_are_partial() -> None:
    frame = series()
    quote = frame.iloc[[-1]].copy()
    quote["timestamp"] += np.timedelta64(20, "m")
    quote[list(PRICES)] = 101.0
    frame = pd.concat([frame, quote], ignore_index=True)
    report = look(frame)
    assert counts(report) == {"partial_bar": 2}
    assert [f.text for f in report.findings("partial_bar")] == [
        "still open at the quote that follows",
        "a quote among the bars",
    ]
    assert len(admit(report, Check(), file=FILE)) == len(series()) - 1
    with pytest.raises(DataError, match="breaks partial_bar"):
        admit(look(frame, drop=["duplicate"]), Check(drop=["duplicate"]), file=FILE)


def test_a_last_bar_that_stands_still_without_volume_is_partial() -> None:
    frame = series()
    last = len(frame) - 1
    frame.loc[last, list(PRICES)] = frame.loc[last, "close"]
    assert counts(look(frame)) == {}
    frame.loc[last, "volume"] = 0
    assert counts(look(frame)) == {"partial_bar": 1, "zero_volume": 1}


def test_a_series_off_the_grid_throughout_is_no_series_of_quotes() -> None:
    frame = series()
    frame["timestamp"] += pd.Timedelta(minutes=20)
    report = look(frame)
    assert counts(report)["off_grid"] == len(frame) and "partial_bar" not in report.hits
    assert report.score == 100 - 30 - 100 * 399 / 799
    # The whole series is one drift of constant size: steps are regular, and nothing is counted twice.
    assert [f.text for f in report.findings("drift")] == ["400 bars close beside the grid, by +1200 s to +1200 s"]
    assert "irregular" not in report.hits


def test_gaps_are_counted_by_the_calendar() -> None:
    frame = series().drop(index=[10, 11, 12, 50]).reset_index(drop=True)
    report = look(frame)
    assert counts(report) == {"gap": 4}
    assert [(f.time, f.text) for f in report.findings("gap")] == [
        ("2024-01-01T11:00:00Z", "bars missing to 2024-01-01T13:00:00Z: 3"),
        ("2024-01-03T03:00:00Z", "bars missing to 2024-01-03T03:00:00Z: 1"),
    ]
    assert report.score == pytest.approx(100 - 100 * 4 / 400)


def test_nights_and_holidays_are_no_gaps() -> None:
    first, last = np.datetime64("2024-11-20T00:00", "us"), np.datetime64("2025-01-10T00:00", "us")
    times = expected_closes("XNYS", timedelta(hours=1), first, last)
    frame = series(len(times)).assign(timestamp=from_times(times))
    assert counts(look(frame, calendar="XNYS")) == {}
    thanksgiving = times.searchsorted(np.datetime64("2024-11-29T18:00"))
    assert counts(look(frame.drop(index=thanksgiving), calendar="XNYS")) == {"gap": 1}
    assert counts(look(frame, calendar="24/7"))["gap"] > len(times)


def test_bars_off_the_grid_are_told() -> None:
    frame = series()
    frame.loc[[100, 200], "timestamp"] += pd.Timedelta(minutes=7)
    report = look(frame, drop=["duplicate"])
    assert counts(report)["off_grid"] == 2


def test_zero_volume_is_a_warning_or_dropped_and_then_no_gap() -> None:
    frame = series()
    frame.loc[::4, "volume"] = 0
    report = look(frame)
    assert counts(report) == {"zero_volume": 100} and len(admit(report, Check(), file=FILE)) == 400
    assert report.score == pytest.approx(100 - 25 * 0.25)
    dropped = look(frame, drop=["zero_volume"])
    assert counts(dropped) == {"zero_volume": 100}
    assert len(admit(dropped, Check(min_bars=300, drop=["zero_volume"]), file=FILE)) == 300


def test_a_series_that_has_no_volume_at_all_can_still_pass() -> None:
    assert look(series().assign(volume=0.0)).score == 90


def test_stale_runs_are_found_from_five_bars_on() -> None:
    frame = series()
    for start, length in ((50, 4), (100, 5), (200, 30)):
        frame.loc[start : start + length - 1, list(PRICES)] = frame.loc[start - 1, "close"]
    report = look(frame, jump_z=1000)
    assert counts(report) == {"stale": 35}
    assert [f.time for f in report.findings("stale")] == ["2024-01-05T05:00:00Z", "2024-01-09T09:00:00Z"]


def test_jumps_are_told_from_splits() -> None:
    frame = series()
    scale(frame, slice(100, None), 1 / 2)
    scale(frame, slice(200, None), 10)
    scale(frame, slice(300, None), 0.6)
    report = look(frame)
    assert counts(report) == {"split": 2, "jump": 1}
    assert [f.time for f in report.findings("jump")] == ["2024-01-13T13:00:00Z"]
    assert re.match(r"× 0\.50\d\d from the last close: a split", report.findings("split")[0].text) or re.match(
        r"× 0\.49\d\d from the last close: a split", report.findings("split")[0].text
    )
    assert counts(look(frame, jump_z=1e6)) == {}


def test_a_jump_over_a_gap_is_measured_against_its_length() -> None:
    frame = series(2000)
    scale(frame, slice(1500, None), 1.05)
    assert counts(look(frame)) == {"jump": 1}
    frame = frame.drop(index=range(1450, 1500))
    assert counts(look(frame)) == {"gap": 50}


def test_rounding_is_repaired_and_nothing_coarser() -> None:
    frame = series()
    frame.loc[5, "high"] = np.nextafter(frame.loc[5, ["open", "close"]].max(), 0)
    frame.loc[6, "low"] = frame.loc[6, ["open", "close"]].min() * (1 + 1e-13)
    report = look(frame)
    assert counts(report) == {"rounding": 2} and report.score == 100
    clean = admit(report, Check(), file=FILE)
    assert clean.loc[5, "high"] == frame.loc[5, ["open", "close"]].max()
    assert clean.loc[6, "low"] == frame.loc[6, ["open", "close"]].min()
    frame.loc[6, "low"] = frame.loc[6, ["open", "close"]].min() * (1 + 1e-11)
    assert "broken_ohlc" in look(frame).blocking


def test_too_few_bars_or_points_are_refused_with_the_limit() -> None:
    with pytest.raises(DataError, match=rf"^{FILE}: X has 299 bars, at least check.min_bars = 300 are needed$"):
        admit(look(series(299)), Check(), file=FILE)
    frame = series(600).drop(index=range(100, 250))
    with pytest.raises(DataError, match=rf"^{FILE}: X scores 75.0, at least .*min_score = 80 is needed .*gap 150\)$"):
        admit(look(frame), Check(), file=FILE)
    assert len(admit(look(frame, min_score=70), Check(min_score=70), file=FILE)) == 450


def test_no_bars_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="X: there are no bars"):
        look(series()[:0])


@pytest.mark.parametrize(
    ("market", "symbol", "least"),
    [
        (name, symbol, 90)
        for name in ("us_daily", "eurusd_hourly", "aapl_hourly", "btc_15m", "synthetic")
        for symbol in PARAMS.markets[name].symbols
    ],
)
def test_every_declared_market_passes_with_the_default_rules(market: str, symbol: str, least: float) -> None:
    report = real(market, symbol)
    clean = admit(report, PARAMS.check, file=FILE)
    validate_bars(clean, name=symbol)
    assert report.score > least and len(clean) >= PARAMS.check.min_bars


def test_what_is_wrong_with_the_bitcoin_series_is_found() -> None:
    report = real("btc_15m", "BTCUSD")
    assert counts(report) == {
        "duplicate": 32,
        "partial_bar": 6,
        "restated": 11,
        "gap": 244,
        "jump": 5,
        "zero_volume": 2084,
    }
    differing = [f for f in report.findings("duplicate") if f.text.startswith("another")]
    assert len(differing) == 11
    longest = int(report.hits["gap"].bars.argmax())
    finding = report.findings("gap")[longest]
    # From the last whole bar, 06:00 on the 27th, to the one that closes at 14:00 on the 29th: 2.3 days.
    assert (finding.time, finding.text) == ("2021-11-27T06:15:00Z", "bars missing to 2021-11-29T13:45:00Z: 223")
    assert report.findings("partial_bar")[-1].time == "2021-12-29T14:05:02Z"
    clean = report.clean()
    assert str(clean["timestamp"].iloc[-1]) == "2021-12-29 13:45:00+00:00"
    # The copy that was cut short, flat at 59205.59, gave way to the one that was read later.
    kept = clean[clean["timestamp"] == "2021-10-27 14:00:00+00:00"]
    assert kept["close"].tolist() == [59050.125]


def test_duplicates_and_partial_bars_of_bitcoin_stop_the_check_if_they_may_not_go() -> None:
    for drop in ([], ["partial_bar"], ["duplicate"]):
        with pytest.raises(DataError, match="BTCUSD at 2021-"):
            admit(real("btc_15m", "BTCUSD", drop=drop), PARAMS.check, file=FILE)


def test_an_unadjusted_split_of_a_real_series_is_found() -> None:
    frame = open_source(PARAMS.markets["us_daily"], root=Path(), seed=0).read("AAPL")
    split = int(to_times(frame["timestamp"]).searchsorted(np.datetime64("2005-02-28")))
    assert real("us_daily", "AAPL").count("split") == 0
    scale(frame, slice(0, split - 1), 2)
    report = look(frame, calendar="XNYS", hours=24)
    assert [f.time for f in report.findings("split")] == ["2005-02-28T21:00:00Z"]


def test_a_jump_that_is_taken_back_says_so() -> None:
    frame = series()
    scale(frame, slice(100, 100), 1.2)
    texts = [f.text for f in look(frame).findings("jump")]
    assert len(texts) == 2 and re.search(r"^log return \+0\.18.*, \d+% taken back by the next bar$", texts[0])
    assert "taken back" not in texts[1]


def test_a_clock_that_drifts_is_told_from_single_bars_off_the_grid() -> None:
    frame = series()
    frame.loc[100:149, "timestamp"] += pd.to_timedelta(np.arange(1, 51), unit="s")
    frame.loc[200:203, "timestamp"] += pd.Timedelta(seconds=9)
    frame.loc[300:305, "timestamp"] -= pd.Timedelta(minutes=2)
    report = look(frame, drop=["duplicate"])
    assert counts(report)["off_grid"] == 50 + 4 + 6
    assert [(f.time, f.text) for f in report.findings("drift")] == [
        ("2024-01-05T05:00:01Z", "50 bars close beside the grid, by +1 s to +50 s"),
        ("2024-01-13T12:58:00Z", "6 bars close beside the grid, by -120 s to -120 s"),
    ]
    # Each step of the growing drift and its end, and both ends of the two shifts.
    assert counts(report)["irregular"] == 50 + 1 + 2 + 2
    assert report.findings("irregular", 1)[0].text == "3601 s after the bar before"
    assert report.score == pytest.approx(100 - 100 * 60 / 460 - 100 * 60 / 460)  # off the grid, and missing on it


def test_a_clock_that_turns_from_late_to_early_drifts_twice() -> None:
    frame = series()
    frame.loc[100:105, "timestamp"] += pd.Timedelta(seconds=9)
    frame.loc[106:110, "timestamp"] -= pd.Timedelta(seconds=9)
    assert [f.text for f in look(frame).findings("drift")] == [
        "6 bars close beside the grid, by +9 s to +9 s",
        "5 bars close beside the grid, by -9 s to -9 s",
    ]


def test_off_hours_are_no_drift_of_an_exchange() -> None:
    first, last = np.datetime64("2024-03-01", "us"), np.datetime64("2024-06-01", "us")
    times = expected_closes("XNYS", timedelta(hours=1), first, last)
    frame = series(len(times)).assign(timestamp=from_times(times))
    shifted = frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(seconds=30))
    assert [look(f, calendar="XNYS").count("drift") for f in (frame, shifted)] == [0, len(times)]
    late = frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(hours=9))
    assert look(late, calendar="XNYS").count("drift") == 0 and look(late, calendar="XNYS").count("off_grid") > 300


def test_the_crash_of_a_real_stock_is_a_jump_and_no_split() -> None:
    """Apple lost 52% on 2000-09-29, close to the ratio of a 2:1 split."""
    report = real("us_daily", "AAPL")
    assert [f.time for f in report.findings("jump")] == ["2000-09-29T20:00:00Z"] and report.count("split") == 0


def test_rounding_of_a_vendors_own_adjustment_is_repaired() -> None:
    market = PARAMS.markets["us_daily"]
    frame = open_source(market, root=Path(), seed=0).read("AAPL_1D")
    report = look(frame, calendar="XNYS", hours=24)
    assert report.count("rounding") == 26 and report.blocking == []
    validate_bars(report.clean(), name="AAPL_1D")


def test_summaries_are_json_and_the_same_each_time() -> None:
    first, second = (json.dumps(real("btc_15m", "BTCUSD").summary(), allow_nan=False) for _ in range(2))
    assert first == second
    summary = json.loads(first)
    assert summary["bars"] == 8684 and summary["rows"] == 8721 and summary["score"] == 90.64
    assert summary["first"] == "2021-09-27T14:00:00Z" and summary["last"] == "2021-12-29T13:45:00Z"
    assert all(len(examples) <= 3 for examples in summary["examples"].values())


def test_people_get_a_table() -> None:
    out = StringIO()
    print_table([real("btc_15m", "BTCUSD"), look(series())], console=Console(file=out, width=140))
    assert re.search(r"BTCUSD.*90\.6.*8684.*duplicate 32, partial_bar 6", out.getvalue())
    assert re.search(r"X.*100\.0.*400.*nothing found", out.getvalue())


def test_every_rule_costs_no_more_than_its_cap() -> None:
    assert all(0 <= rule.cap <= 100 and rule.weight >= 0 for rule in RULES.values())
    frame = series(600).drop(index=range(100, 550))
    assert look(frame).score == 50


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("close", np.inf, "close must be finite"),
        ("known_at", pd.Timestamp("2023-01-01", tz="UTC"), "known_at must not be before the time itself"),
        ("known_at", pd.Timestamp("2024-02-01", tz="UTC"), "known_at must not decrease"),
        ("timestamp", pd.Timestamp("2023-01-01", tz="UTC"), "times must not decrease"),
    ],
)
def test_broken_context_is_named(column: str, value: Any, rule: str) -> None:
    at = from_times(START + np.arange(5) * HOUR)
    frame = pd.DataFrame({"timestamp": at, "known_at": at.copy(), "close": 1.0})
    assert check_context(frame, file="C") is frame
    frame.loc[2, column] = value
    with pytest.raises(DataError, match=rf"^C at .*: {rule}; 1 such rows$"):
        check_context(frame, file="C")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_the_damage_the_result_is_good_bars_or_a_data_error(data: st.DataObject) -> None:
    """Random damage: what is admitted satisfies the contract, keeps no row twice and invents none."""
    frame = series(60)
    for _ in range(data.draw(st.integers(0, 4))):
        row = data.draw(st.integers(0, len(frame) - 1))
        kind = data.draw(st.sampled_from(["value", "copy", "drop", "swap", "shift"]))
        if kind == "value":
            column = data.draw(st.sampled_from(COLUMNS[1:]))
            frame.loc[row, column] = data.draw(st.sampled_from([np.nan, np.inf, 0.0, -1.0, 1e-9, 1e9]))
        elif kind == "copy":
            frame = pd.concat([frame[: row + 1], frame[row:]])
        elif kind == "drop":
            frame = frame.drop(index=row)
        elif kind == "swap":
            frame = frame.iloc[[*range(row), *range(row, len(frame))[::-1][:2], *range(row, len(frame))]]
        else:
            frame.loc[row, "timestamp"] += pd.Timedelta(minutes=data.draw(st.integers(-90, 90)))
        frame = frame.reset_index(drop=True)
    config = Check(
        min_bars=1, min_score=0, drop=data.draw(st.lists(st.sampled_from(Check.model_fields["drop"].default)))
    )
    report = look(frame, **config.model_dump())
    assert 0 <= report.score <= 100
    json.dumps(report.summary(), allow_nan=False)
    try:
        clean = admit(report, config, file=FILE)
    except DataError as error:
        assert "X" in str(error)
    else:
        validate_bars(clean, name="X")
        raw = set(map(tuple, frame[["timestamp", "close", "volume"]].to_numpy()))
        assert set(map(tuple, clean[["timestamp", "close", "volume"]].to_numpy())) <= raw
