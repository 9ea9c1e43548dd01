from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from stages.check import check
from stages.ingest import ingest
from tradeloop.bars import COLUMNS, CONTEXT_COLUMNS, TIME, validate_bars
from tradeloop.config import Params, load_params
from tradeloop.errors import DataError
from tradeloop.layout import Layout

ROOT = Path(__file__).parents[2]
Parameters = Callable[..., Params]
TABLES = ("days.parquet", "findings.parquet", "marks.parquet")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def parameters(layout: Layout) -> Parameters:
    """Return the repository's parameters for a market, with blocks changed."""

    def make(market: str = "eurusd_hourly", **blocks: dict[str, Any]) -> Params:
        raw = yaml.safe_load((ROOT / "params.yaml").read_text())
        raw["market"] = market
        for name, block in blocks.items():
            raw[name].update(block)
        layout.params.write_text(yaml.safe_dump(raw))
        return load_params(layout.params)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def csv_market(layout: Layout) -> Callable[..., dict[str, Any]]:
    """Write hourly CSV files of two symbols; return a markets: block that reads them."""

    def make(**spoil: Callable[[list[str]], list[str]]) -> dict[str, Any]:
        draw = np.random.default_rng(1)
        (layout.root / "in").mkdir(exist_ok=True)
        for symbol in ("AA", "BB"):
            close = 100 * np.exp(np.cumsum(draw.normal(0, 0.01, 400)))
            times = pd.date_range("2024-01-01 01:00", periods=400, freq="h")
            rows = [f"{t},{c:.4f},{c * 1.01:.4f},{c * 0.99:.4f},{c:.4f},7" for t, c in zip(times, close, strict=True)]
            lines = ["timestamp,open,high,low,close,volume", *rows]
            lines = spoil[symbol](lines) if symbol in spoil else lines
            (layout.root / "in" / f"{symbol}.csv").write_text("\n".join(lines) + "\n")
        market = {
            "source": "files",
            "symbols": ["AA", "BB"],
            "calendar": "24/7",
            "interval": "1h",
            "files": {"path": "in"},
        }
        return {"csv": market}

    return make


def test_the_default_market_goes_through_both_stages(layout: Layout, parameters: Parameters) -> None:
    params = parameters("us_daily")
    ingest(layout, params)
    check(layout, params)
    for folder in (layout.raw, layout.clean):
        names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.parquet"))]
        names = [name for name in names if folder == layout.raw or name not in TABLES]
        assert names == [f"bars/{s}.parquet" for s in ("AAPL", "GOOG", "IBM", "MSFT")] + [
            f"context/{name}.parquet" for name in ("NASDAQ", "SP500", "WTI")
        ]
    bars = pd.read_parquet(layout.clean / "bars" / "AAPL.parquet")
    assert list(bars.columns) == list(COLUMNS) and len(validate_bars(bars, name="AAPL")) == 3270
    context = pd.read_parquet(layout.clean / "context" / "WTI.parquet")
    assert list(context.columns) == list(CONTEXT_COLUMNS) and str(context["known_at"].dtype) == TIME
    report = json.loads((layout.reports / "integrity.json").read_text())
    assert report["market"] == "us_daily" and report["context"]["SP500"] == {"rows": 5031}
    assert {symbol: entry["bars"] for symbol, entry in report["symbols"].items()} == {
        "AAPL": 3270,
        "GOOG": 2148,
        "IBM": 3270,
        "MSFT": 3270,
    }
    assert all(entry["score"] > 99 for entry in report["symbols"].values())
    assert {entry["days"]["quarantined"] for entry in report["symbols"].values()} == {0}
    assert pd.read_parquet(layout.clean / "days.parquet")["admitted"].all()


def test_the_same_parameters_give_the_same_bytes(layout: Layout, parameters: Parameters) -> None:
    params = parameters("btc_15m")
    runs = []
    for _ in range(2):
        ingest(layout, params)
        check(layout, params)
        runs.append(contents(layout.data))
    assert runs[0] == runs[1] and len(runs[0]) == 7
    assert len(runs[0]["reports/integrity.json"]) < 5_000


def test_another_market_leaves_nothing_of_the_one_before(layout: Layout, parameters: Parameters) -> None:
    for market in ("us_daily", "eurusd_hourly"):
        ingest(layout, parameters(market))
        check(layout, parameters(market))
    assert set(contents(layout.data)) == {
        "raw/bars/EURUSD.parquet",
        "clean/bars/EURUSD.parquet",
        *(f"clean/{name}" for name in TABLES),
        "reports/integrity.html",
        "reports/integrity.json",
    }


def test_start_and_end_cut_by_the_close(layout: Layout, parameters: Parameters) -> None:
    params = parameters("us_daily", ingest={"start": "2010-01-04", "end": "2011-12-29T21:00:00+00:00"})
    ingest(layout, params)
    bars = pd.read_parquet(layout.raw / "bars" / "IBM.parquet")["timestamp"]
    assert (str(bars.iloc[0]), str(bars.iloc[-1])) == ("2010-01-04 21:00:00+00:00", "2011-12-29 21:00:00+00:00")
    context = pd.read_parquet(layout.raw / "context" / "SP500.parquet")["timestamp"]
    assert context.iloc[0].year == 1999 and context.iloc[-1] == bars.iloc[-1]


def test_a_cut_that_leaves_nothing_is_refused(layout: Layout, parameters: Parameters) -> None:
    with pytest.raises(DataError, match=r"EURUSD has no bars from ingest.start = 2030"):
        ingest(layout, parameters("eurusd_hourly", ingest={"start": "2030-01-01"}))
    assert not layout.raw.exists()


def test_relative_paths_start_at_the_project_root(
    layout, parameters, csv_market, monkeypatch, tmp_path_factory
) -> None:
    params = parameters("csv", markets=csv_market())
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    ingest(layout, params)
    check(layout, params)
    assert set(contents(layout.clean)) == {"bars/AA.parquet", "bars/BB.parquet", *TABLES}


def replace(row: int, column: int, value: str) -> Callable[[list[str]], list[str]]:
    def spoil(lines: list[str]) -> list[str]:
        cells = lines[row].split(",")
        cells[column] = value
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]]

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (replace(6, 3, "-1"), "BB at 2024-01-01T06:00:00Z breaks non_positive_price: .*; 1 such bars"),
        (replace(6, 2, "1"), "BB at 2024-01-01T06:00:00Z breaks broken_ohlc: .*high=1.0"),
        (replace(6, 4, ""), "BB at 2024-01-01T06:00:00Z breaks not_finite: .*close=nan"),
        (replace(6, 5, "-2"), "BB at 2024-01-01T06:00:00Z breaks negative_volume: .*volume=-2.0"),
        (lambda lines: [lines[0], *lines[2:9], lines[1], *lines[9:]], "BB at 2024-01-01T01:00:00Z breaks out_of_order"),
        (lambda lines: lines[:200], "BB has 199 bars, at least check.min_bars = 300 are needed"),
        (lambda lines: lines[:10] + lines[95:], "BB scores 7.*gap 85"),
    ],
)
def test_bad_bars_stop_the_check_and_leave_everything_as_it_was(spoil, message, layout, parameters, csv_market) -> None:
    params = parameters("csv", markets=csv_market())
    ingest(layout, params)
    check(layout, params)
    before = {**contents(layout.clean), **contents(layout.reports)}
    ingest(layout, parameters("csv", markets=csv_market(BB=spoil)))
    with pytest.raises(DataError, match=f"^data/raw/bars/BB.parquet: {message}"):
        check(layout, params)
    assert {**contents(layout.clean), **contents(layout.reports)} == before


def test_duplicates_are_cleaned_unless_the_parameters_say_not(layout, parameters, csv_market) -> None:
    markets = csv_market(BB=lambda lines: [*lines[:5], *lines[4:]])
    params = parameters("csv", markets=markets)
    ingest(layout, params)
    check(layout, params)
    assert len(pd.read_parquet(layout.clean / "bars" / "BB.parquet")) == 400
    with pytest.raises(DataError, match=r"BB.parquet: BB at 2024-01-01T04:00:00Z breaks duplicate: an identical copy"):
        check(layout, parameters("csv", markets=markets, check={"drop": []}))


def test_a_day_with_too_much_missing_is_held_back_and_named(layout, parameters, csv_market, capsys) -> None:
    params = parameters("csv", markets=csv_market(BB=lambda lines: lines[:60] + lines[66:]))
    ingest(layout, params)
    check(layout, params)
    said = "check: BB: 1 of 17 days are held back from learning, below check.min_score = 80: 2024-01-03 (75.0)"
    assert said in capsys.readouterr().out.splitlines()
    days = pd.read_parquet(layout.clean / "days.parquet")
    assert days.loc[~days["admitted"], ["symbol", "missing"]].to_numpy().tolist() == [["BB", 6]]
    report = json.loads((layout.reports / "integrity.json").read_text())["symbols"]["BB"]
    assert report["days"] == {"all": 17, "quarantined": 1, "worst": [{"day": "2024-01-03", "score": 75.0}]}
    page = (layout.reports / "integrity.html").read_text()
    assert "BB: gap, 6 bars" in page and "BB 2024-01-03: 6 of 24 bars missing" in page
    check(layout, parameters("csv", markets=params.model_dump()["markets"], check={"min_score": 75}))
    assert pd.read_parquet(layout.clean / "days.parquet")["admitted"].all()


def test_a_file_that_was_mended_since_fills_the_gaps(layout, parameters, csv_market, capsys) -> None:
    params = parameters("csv", markets=csv_market(BB=lambda lines: lines[:60] + lines[66:]))
    ingest(layout, params)
    whole = csv_market()
    check(layout, parameters("csv", markets=whole, check={"refetch": {"attempts": 0}}))
    assert len(pd.read_parquet(layout.clean / "bars" / "BB.parquet")) == 394
    capsys.readouterr()
    check(layout, params)
    assert capsys.readouterr().out.splitlines() == ["check: BB: asked again for 1 gap: 6 of 6 missing bars came"]
    clean, raw = (pd.read_parquet(folder / "bars" / "BB.parquet") for folder in (layout.clean, layout.raw))
    assert (len(clean), len(raw)) == (400, 394)
    report = json.loads((layout.reports / "integrity.json").read_text())["symbols"]["BB"]
    assert report["refetched"] == {"gaps": 1, "missing": 6, "came": 6} and report["findings"] == {}


def test_one_asset_under_two_names_is_said(layout, parameters, csv_market, capsys) -> None:
    markets = csv_market()
    (layout.root / "in" / "BB.csv").write_bytes((layout.root / "in" / "AA.csv").read_bytes())
    params = parameters("csv", markets=markets)
    ingest(layout, params)
    check(layout, params)
    said = "check: BB: returns are those of AA: correlation 1.000000 over 399 bars"
    assert capsys.readouterr().out.splitlines()[2:] == [said]
    findings = pd.read_parquet(layout.clean / "findings.parquet")
    assert findings[["symbol", "rule", "bars"]].to_numpy().tolist() == [["BB", "twin", 399]]


def test_raw_files_spoilt_since_are_named(layout: Layout, parameters: Parameters) -> None:
    params = parameters("eurusd_hourly")
    ingest(layout, params)
    path = layout.raw / "bars" / "EURUSD.parquet"
    good = path.read_bytes()
    frame = pd.read_parquet(path)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"^data/raw/bars/EURUSD.parquet is not readable parquet: "):
        check(layout, params)
    frame.drop(columns="close").to_parquet(path)
    with pytest.raises(DataError, match=r"^data/raw/bars/EURUSD.parquet: column 'close' is missing"):
        check(layout, params)
    frame.assign(close="1").to_parquet(path)
    with pytest.raises(DataError, match=r"^data/raw/bars/EURUSD.parquet: close must be float64, got object"):
        check(layout, params)
    frame.assign(timestamp=frame["timestamp"].where(frame.index != 7)).to_parquet(path)
    with pytest.raises(DataError, match=r"^data/raw/bars/EURUSD.parquet row 8: timestamp must not be missing"):
        check(layout, params)
    path.unlink()
    with pytest.raises(DataError, match=r"^data/raw/bars/EURUSD.parquet is missing"):
        check(layout, params)
    assert not layout.clean.exists() and not layout.reports.exists()


def test_broken_context_stops_the_check(layout: Layout, parameters: Parameters) -> None:
    params = parameters("us_daily")
    ingest(layout, params)
    path = layout.raw / "context" / "WTI.parquet"
    frame = pd.read_parquet(path)
    frame["known_at"] = frame["timestamp"] - np.timedelta64(1, "h")
    frame.to_parquet(path)
    with pytest.raises(DataError, match=r"^data/raw/context/WTI.parquet at 1986-.*: known_at must not be before"):
        check(layout, params)
    assert not layout.clean.exists()


@pytest.mark.parametrize("stage", ["ingest", "check"])
def test_as_a_command_a_stage_says_what_is_wrong_in_one_line(
    stage, layout, parameters, csv_market, monkeypatch
) -> None:
    markets = csv_market(BB=replace(6, 3, "-1")) if stage == "check" else csv_market(BB=lambda lines: lines[:1])
    params = parameters("csv", markets=markets)
    monkeypatch.setenv("TRADELOOP_HOME", str(layout.root))
    if stage == "check":
        ingest(layout, params)
    result = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        {"ingest": "ingest: in/BB.csv has no rows", "check": "check: data/raw/bars/BB.parquet: BB at"}[stage]
    )
    assert "Traceback" not in result.stderr and not (layout.clean).exists()
