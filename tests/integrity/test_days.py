"""Scores by day: which bars a day has, what it loses, and that marks fall on bars which were kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raw_bars import HOUR, START, counts, look, real, scale, series
from tradeloop.bars import PRICES, from_times, to_times
from tradeloop.calendars import expected_closes
from tradeloop.integrity import RULES, Report, finding_table, mark_table
from tradeloop.integrity.days import day_table, quarantined


def days(*reports: Report, min_score: float = 80) -> pd.DataFrame:
    return day_table(reports, min_score)


def daily(n: int = 400) -> pd.DataFrame:
    """Return daily bars of XNYS that break no rule."""
    first, last = np.datetime64("2023-01-01", "us"), np.datetime64("2025-06-01", "us")
    return series(n).assign(timestamp=from_times(expected_closes("XNYS", timedelta(days=1), first, last)[:n]))


def held(table: pd.DataFrame) -> dict[str, float]:
    bad = table[~table["admitted"]]
    return {f"{day:%m-%d}": round(score, 1) for day, score in zip(bad["day"], bad["score"], strict=True)}


def test_each_day_of_a_good_series_has_100() -> None:
    table = days(look(series()))
    assert (table["score"] == 100).all() and table["admitted"].all() and not table["missing"].any()
    # 400 hourly bars from 01:00; the bar that closes at midnight is the last of its day.
    assert table["bars"].tolist() == [24] * 16 + [16]
    assert str(table["day"][0]) == "2024-01-01 00:00:00" and table["symbol"].unique() == ["X"]
    assert (to_times(table["end"]) - to_times(table["start"]) == np.timedelta64(1, "D")).all()


def test_a_day_scores_by_the_formula_over_its_own_bars() -> None:
    frame = series()
    scale(frame, slice(100, None), 1.3)
    frame.loc[100:105, "volume"] = 0
    frame = frame.drop(index=[102, 110, 130]).reset_index(drop=True)
    table = days(look(frame)).set_index("day")
    # 2024-01-05: 24 bars due, 2 missing, 1 jump, 5 without volume. A jump costs at most 20, which 1 in 24 exceeds.
    expected = 100 - 100 * 2 / 24 - 20 - 0.25 * 100 * 5 / 24
    assert table.loc["2024-01-05", ["bars", "missing"]].tolist() == [22, 2]
    assert table.loc["2024-01-05", "score"] == pytest.approx(expected) and not table.loc["2024-01-05", "admitted"]
    assert table.loc["2024-01-06", "score"] == pytest.approx(100 - 100 / 24)
    assert (table["score"].drop(["2024-01-05", "2024-01-06"]) == 100).all()


def test_the_least_admitted_score_is_the_parameters() -> None:
    frame = series().drop(index=range(100, 106)).reset_index(drop=True)  # a quarter of a day
    report = look(frame)
    assert [held(days(report, min_score=least)) for least in (75, 75.1)] == [{}, {"01-05": 75.0}]


def test_a_day_without_bars_has_nothing() -> None:
    frame = series().drop(index=range(90, 200)).reset_index(drop=True)
    table = days(look(frame))
    gone = table[table["bars"] == 0]
    assert gone["day"].dt.strftime("%m-%d").tolist() == ["01-05", "01-06", "01-07", "01-08"]
    assert (gone["score"] == 0).all() and (gone["missing"] == 24).all()


def test_a_trading_day_ends_with_its_session() -> None:
    table = days(look(daily(), calendar="XNYS", hours=24))
    assert (table["bars"] == 1).all() and (table["day"].dt.dayofweek < 5).all()
    # A bar belongs to one day alone, over weekends and holidays.
    assert (to_times(table["start"])[1:] == to_times(table["end"])[:-1]).all()
    forex = days(real("eurusd_hourly", "EURUSD"))
    assert set(forex["day"].dt.dayofweek) == {0, 1, 2, 3, 4}
    assert forex["bars"].max() == 24 and held(forex) == {"12-25": 50.0}


@pytest.mark.parametrize(
    ("spoil", "rule", "points"),
    [
        # A day of one bar: whatever breaks costs the rule's cap.
        (lambda f: scale(f, slice(100, None), 0.5), "split", 50),
        (lambda f: scale(f, slice(100, None), 1.3), "jump", 20),
        (lambda f: f.__setitem__("volume", f["volume"].where(f.index != 100, 0)), "zero_volume", 10),
        (lambda f: f.loc.__setitem__((slice(100, 104), list(PRICES)), f.loc[99, "close"]), "stale", 50),
    ],
)
def test_a_day_of_one_bar_loses_at_most_the_cap(spoil: Any, rule: str, points: float) -> None:
    frame = daily()
    spoil(frame)
    report = look(frame, calendar="XNYS", hours=24)
    assert list(counts(report)) == [rule] and min(25 * RULES[rule].weight * 4, RULES[rule].cap) == points
    table = days(report)
    lost = table[table["score"] < 100]
    assert len(lost) == report.count(rule) and (lost["score"] == 100 - points).all()
    # A market's own jump does not keep its day from being learnt from; an unadjusted split does.
    assert lost["admitted"].all() == (points <= 20)


def test_the_days_of_the_bitcoin_series_that_are_held_back() -> None:
    table = days(real("btc_15m", "BTCUSD"))
    assert held(table) == {"10-27": 76.8, "11-27": 46.7, "11-28": 0.0, "11-29": 47.7}
    assert table["missing"].sum() == 244 and len(table) == 94
    assert quarantined(table)["day"].dt.strftime("%m-%d").tolist() == ["11-28", "11-27", "11-29", "10-27"]


def test_no_day_of_the_default_market_is_held_back() -> None:
    table = days(*(real("us_daily", symbol) for symbol in ("AAPL", "IBM", "MSFT", "GOOG")))
    assert table["admitted"].all() and table["score"].min() == 80.0
    assert (table["score"] < 100).sum() == 6 and table["symbol"].unique().tolist() == ["AAPL", "IBM", "MSFT", "GOOG"]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_days_hold_all_bars_and_all_gaps_once(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 150))
    frame = series(n)
    gone = data.draw(st.sets(st.integers(1, n - 1), max_size=n - 2))
    frame = frame.drop(index=list(gone - {n - 1})).reset_index(drop=True)
    frame.loc[sorted(data.draw(st.sets(st.integers(0, len(frame) - 1)))), "volume"] = 0
    report = look(frame)
    table = days(report)
    assert table["bars"].sum() == len(frame) and table["missing"].sum() == report.count("gap")
    assert table["score"].between(0, 100).all()
    whole = table["bars"] > 0
    # The formula over one day alone.
    for row in table[whole].itertuples():
        times = to_times(frame["timestamp"])
        mine = frame[(times > row.start.to_datetime64()) & (times <= row.end.to_datetime64())]
        share = 100 * (mine["volume"] == 0).sum() / (row.bars + row.missing)
        others = {name for name in counts(report) if name not in ("gap", "zero_volume")}
        if not others:
            lost = min(50, 100 * row.missing / (row.bars + row.missing)) + min(10, 0.25 * share)
            assert row.score == pytest.approx(100 - lost)


def test_marks_name_each_odd_bar_that_stays() -> None:
    frame = series()
    frame.loc[50:56, list(PRICES)] = frame.loc[49, "close"]
    frame.loc[[10, 20], "volume"] = 0
    early = frame.iloc[[30]].assign(volume=0.5)
    frame = pd.concat([frame[:30], early, frame[30:]], ignore_index=True)
    marks = mark_table([look(frame, jump_z=1e6), look(series())])
    assert marks.groupby("rule").size().to_dict() == {"stale": 7, "zero_volume": 2, "restated": 1}
    stale = to_times(marks.loc[marks["rule"] == "stale", "time"])
    np.testing.assert_array_equal(stale, START + np.arange(50, 57) * HOUR)
    assert to_times(marks.loc[marks["rule"] == "restated", "time"]) == START + 30 * HOUR
    dropped = mark_table([look(frame, jump_z=1e6, drop=["duplicate", "zero_volume"])])
    assert "zero_volume" not in set(dropped["rule"])


def test_the_marks_of_bitcoin_are_on_bars_that_were_kept() -> None:
    report = real("btc_15m", "BTCUSD")
    marks = mark_table([report])
    # Of the 2,084 without volume, five were partial bars or copies that went.
    assert marks["rule"].value_counts().to_dict() == {"zero_volume": 2079, "restated": 11, "jump": 5}
    kept = report.clean()
    assert marks["time"].isin(kept["timestamp"]).all()
    silent = set(kept.loc[kept["volume"] == 0, "timestamp"])
    assert set(marks.loc[marks["rule"] == "zero_volume", "time"]) == silent


def test_findings_are_told_with_symbol_time_rule_and_severity() -> None:
    table = finding_table([look(series()), real("btc_15m", "BTCUSD")])
    assert list(table.columns) == ["symbol", "time", "rule", "severity", "bars", "text"]
    assert table.groupby("rule")["bars"].sum().to_dict() == {
        "duplicate": 32, "partial_bar": 6, "restated": 11, "gap": 244, "jump": 5, "zero_volume": 2084
    }  # fmt: skip
    assert set(table["symbol"]) == {"BTCUSD"}
    assert set(table.loc[table["severity"] == "error", "rule"]) == {"duplicate", "partial_bar"}
    longest = table.loc[table["bars"].idxmax()]
    assert (str(longest["time"]), longest["bars"], longest["rule"]) == ("2021-11-27 06:15:00+00:00", 223, "gap")


def test_tables_without_rows_have_the_same_types() -> None:
    nothing, some = ([look(series())], [real("btc_15m", "BTCUSD")])
    for table in (finding_table, mark_table):
        empty, full = table(nothing), table(some)
        assert empty.empty and empty.dtypes.to_dict() == full.dtypes.to_dict()
