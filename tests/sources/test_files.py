from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.bars import COLUMNS, TIME
from tradeloop.errors import ConfigError, DataError
from tradeloop.sources.table import TableFormat, adjust, context_frame, read_table, times

HEADER = "timestamp,open,high,low,close,volume"
ROWS = ["2024-03-04T10:00:00Z,1,3,0.5,2,100", "2024-03-04T11:00:00Z,2,4,1.5,3,200"]


def write(folder: Path, *lines: str, name: str = "in/X.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def stamps(frame: pd.DataFrame, column: str = "timestamp") -> list[str]:
    return frame[column].dt.strftime("%Y-%m-%d %H:%M").tolist()


def test_a_csv_is_read_as_it_stands(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, *ROWS[::-1], ROWS[0])
    bars = files().read("X")
    assert list(bars.columns) == list(COLUMNS) and str(bars["timestamp"].dtype) == TIME
    assert stamps(bars) == ["2024-03-04 11:00", "2024-03-04 10:00", "2024-03-04 10:00"]
    assert bars.iloc[0, 1:].tolist() == [2.0, 4.0, 1.5, 3.0, 200.0]


@pytest.mark.parametrize("name", ["in/X.csv", "in/X.csv.gz", "in/X.parquet"])
def test_all_kinds_of_file_give_the_same_bars(name: str, tmp_path: Path, files) -> None:
    path = write(tmp_path, HEADER, *ROWS)
    expected = files().read("X")
    frame = pd.read_csv(path, parse_dates=["timestamp"])
    text = path.read_bytes()
    path.unlink()
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    pd.testing.assert_frame_equal(files().read("X"), expected)


def test_a_template_names_the_file(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, *ROWS, name="deep/X_1h.csv")
    assert len(files(path="deep/{symbol}_1h.csv").read("X")) == 2


def test_an_absolute_path_may_lie_outside_the_project(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, *ROWS)
    assert len(files(path=str(tmp_path / "in")).read("X")) == 2


def test_columns_are_mapped_and_prices_adjusted(tmp_path: Path, files) -> None:
    write(
        tmp_path,
        "Date,O,H,L,C,V,Adj Close,other",
        "2024-03-04 10:00,10,20,5,10,100,5,x",
        "2024-03-04 11:00,6,8,4,6,50,6,",
    )
    columns = {"open": "O", "high": "H", "low": "L", "close": "C", "volume": "V"}
    bars = files(timestamp="Date", columns=columns).read("X")
    assert bars["close"].tolist() == [10.0, 6.0]
    bars = files(timestamp="Date", columns={**columns, "adj_close": "Adj Close"}).read("X")
    assert bars.iloc[0, 1:].tolist() == [5.0, 10.0, 2.5, 5.0, 200.0]
    assert bars.iloc[1, 1:].tolist() == [6.0, 8.0, 4.0, 6.0, 50.0]


@pytest.mark.parametrize(
    ("stamped_at", "timezone", "expected"),
    [("close", "UTC", "14:30"), ("open", "UTC", "15:30"), ("close", "America/New_York", "19:30")],
)
def test_times_mean_what_the_parameters_say(stamped_at, timezone, expected, tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, "2024-03-04 14:30,1,3,0.5,2,100")
    bars = files(stamped_at=stamped_at, timezone=timezone).read("X")
    assert stamps(bars) == [f"2024-03-04 {expected}"]


def test_opens_close_with_the_exchange(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, "2024-11-29 12:30,1,3,0.5,2,100", "2024-12-02 15:30,1,3,0.5,2,100")
    bars = files(calendar="XNYS", stamped_at="open", timezone="America/New_York").read("X")
    assert stamps(bars) == ["2024-11-29 18:00", "2024-12-02 21:00"]


@pytest.mark.parametrize("date", ["2024-11-29", "2024-11-29T00:00:00-05:00"])
@pytest.mark.parametrize("stamped_at", ["open", "close"])
def test_dates_of_daily_bars_name_their_session(date: str, stamped_at: str, tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, f"{date},1,3,0.5,2,100")
    source = files(calendar="XNYS", interval="1d", stamped_at=stamped_at, timezone="America/New_York")
    assert stamps(source.read("X")) == ["2024-11-29 18:00"]


def test_daily_bars_with_a_time_of_day_keep_it(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, "2024-11-29 16:00,1,3,0.5,2,100")
    source = files(calendar="XNYS", interval="1d", timezone="America/New_York")
    assert stamps(source.read("X")) == ["2024-11-29 21:00"]


def test_dates_of_a_round_the_clock_market_are_midnights(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, "2024-11-30,1,3,0.5,2,100")
    assert stamps(files(interval="1d", stamped_at="open").read("X")) == ["2024-12-01 00:00"]
    assert stamps(files(interval="1d", stamped_at="close").read("X")) == ["2024-11-30 00:00"]


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        ("%d.%m.%Y %H:%M", "04.03.2024 10:00"),
        ("%Y%m%d%H", "2024030410"),
        ("s", "1709546400"),
        ("ms", "1709546400000"),
        ("us", "1709546400000000"),
        (None, "2024-03-04T12:00:00+02:00"),
        (None, "2024-03-04 10:00:00.000"),
    ],
)
def test_time_formats(form: str | None, cell: str, tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, f"{cell},1,3,0.5,2,100")
    assert stamps(files(timestamp_format=form).read("X")) == ["2024-03-04 10:00"]


def test_blank_lines_are_no_bars_and_empty_cells_are_nan(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, ROWS[0], "", "2024-03-04T11:00:00Z,2,4,,3,200", "")
    bars = files().read("X")
    assert len(bars) == 2 and np.isnan(bars["low"].iloc[1])


def bad(*lines: str, message: str, name: str, **block: str) -> object:
    return pytest.param(lines, block, message, id=name)


@pytest.mark.parametrize(
    ("lines", "block", "message"),
    [
        bad(message="X: in holds none of X.parquet, X.csv, X.csv.gz", name="no file"),
        bad(message="^X.txt is missing$", name="no file of a template", path="{symbol}.txt"),
        bad(HEADER, message="^in/X.csv has no rows$", name="header only"),
        bad(
            "timestamp,open,high,low,volume",
            "2024-03-04T10:00:00Z,1,3,0.5,100",
            message=r"^in/X.csv: column 'close' is missing \(columns: timestamp, open, high, low, volume\)$",
            name="no close",
        ),
        bad("time,close", "1,2", message="in/X.csv: column 'timestamp' is missing", name="no timestamp"),
        bad(
            HEADER,
            ROWS[0],
            "",
            "2024-03-04T11:00:00Z,1,3,x,2,1",
            "2024-03-04T12:00:00Z,1,3,y,2,1",
            message=r"^in/X.csv line 4: low must be a number, got 'x' \(and 1 more\)$",
            name="not a number",
        ),
        bad(
            HEADER,
            ROWS[0],
            "yesterday,1,3,0.5,2,100",
            message=r"^in/X.csv line 3: timestamp must be a time written as ISO 8601, got 'yesterday'$",
            name="not a time",
        ),
        bad(HEADER, ",1,3,0.5,2,100", message="line 2: timestamp must be a time", name="no time"),
        bad(HEADER, "1709546400,1,3,0.5,2,1", message="say with timestamp_format which", name="number as time"),
        bad(
            HEADER,
            "1709546400000,1,3,0.5,2,1",
            message="(must lie between 1900 and 2200|must be a time written as s), got '1709546400000'",
            name="milliseconds read as seconds",
            timestamp_format="s",
        ),
        bad(HEADER, ROWS[0], "2024-03-04 11:00,1,3,0.5,2,1", message="mixes times with and without", name="mixed"),
        bad(
            HEADER,
            "2024-11-03 00:30,1,3,0.5,2,1",
            "2024-11-03 01:30,1,3,0.5,2,1",
            message="^in/X.csv line 3: 2024-11-03 01:30:00 happens twice or never in America/New_York",
            name="ambiguous",
            timezone="America/New_York",
        ),
        bad(
            HEADER,
            "2024-03-10 02:30,1,3,0.5,2,1",
            message="line 2: 2024-03-10 02:30:00 happens twice or never",
            name="never",
            timezone="America/New_York",
        ),
        bad(HEADER, ROWS[0] + ",7,8", message="^in/X.csv is not readable CSV: ", name="longer than the header"),
        bad(HEADER, ROWS[0], ROWS[1] + ",7", message="^in/X.csv is not readable CSV: .*line 3", name="ragged"),
    ],
)
def test_bad_tables_are_named(lines, block, message: str, tmp_path: Path, files) -> None:
    if lines:
        write(tmp_path, *lines)
    with pytest.raises(DataError, match=message) as caught:
        files(**block).read("X")
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_an_empty_file_is_named(tmp_path: Path, files) -> None:
    write(tmp_path).write_bytes(b"")
    with pytest.raises(DataError, match=r"^in/X.csv is empty$"):
        files().read("X")


@pytest.mark.parametrize("content", [b"PAR1 nothing PAR1", b"\x00\x01\x02", b"timestamp,close\n1,2\n"])
def test_corrupt_parquet_is_named(content: bytes, tmp_path: Path, files) -> None:
    write(tmp_path, name="in/X.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"^in/X.parquet is not readable parquet: "):
        files().read("X")


def test_truncated_parquet_is_named(tmp_path: Path, files) -> None:
    path = tmp_path / "in" / "X.parquet"
    path.parent.mkdir()
    pd.read_csv(write(tmp_path, HEADER, *ROWS, name="X.csv"), parse_dates=["timestamp"]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"^in/X.parquet is not readable parquet: "):
        files().read("X")


@pytest.mark.parametrize("content", [b"\x1f\x8b broken", gzip.compress(b"timestamp,close\n" * 9999)[:-12]])
def test_corrupt_gzip_is_named(content: bytes, tmp_path: Path, files) -> None:
    write(tmp_path, name="in/X.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"^in/X.csv.gz is not readable CSV: "):
        files().read("X")


def test_text_that_is_no_text_is_named(tmp_path: Path, files) -> None:
    write(tmp_path).write_bytes(b"timestamp,close\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"^in/X.csv is not readable CSV: .*utf-8"):
        files().read("X")


def test_columns_of_another_type_are_named(tmp_path: Path, files) -> None:
    frame = pd.read_csv(write(tmp_path, HEADER, *ROWS, name="X.csv"), parse_dates=["timestamp"])
    (tmp_path / "in").mkdir()
    frame.assign(close=[True, False]).to_parquet(tmp_path / "in/X.parquet")
    with pytest.raises(DataError, match=r"in/X.parquet: close must hold numbers, got bool"):
        files().read("X")


def test_a_date_without_a_session_is_named(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, "2024-11-27,1,3,0.5,2,1", "2024-11-28,1,3,0.5,2,1")
    with pytest.raises(DataError, match=r"^in/X.csv line 3: XNYS has no session on 2024-11-28$"):
        files(calendar="XNYS", interval="1d").read("X")


def test_two_files_of_one_symbol_are_refused(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, *ROWS)
    write(tmp_path, HEADER, *ROWS, name="in/X.parquet")
    with pytest.raises(DataError, match=r"X: \['in/X.parquet', 'in/X.csv'\] are both there; keep one"):
        files().read("X")


def test_an_unknown_timezone_is_named(tmp_path: Path, files) -> None:
    write(tmp_path, HEADER, "2024-03-04 10:00,1,3,0.5,2,1")
    with pytest.raises(ConfigError, match=r"IANA name .*, got 'New York'"):
        files(timezone="New York").read("X")


def test_context_is_known_at_its_time_unless_the_file_says_when(tmp_path: Path, files) -> None:
    write(tmp_path, "timestamp,close", "2024-03-04 10:00,1", "2024-03-05 10:00,2", name="context/C.csv")
    source = files(context_path="context")
    context = source.read_context("C")
    assert stamps(context, "known_at") == stamps(context) == ["2024-03-04 10:00", "2024-03-05 10:00"]
    late = ["2024-03-04 10:00,2024-03-06 08:00,1", "2024-03-05 10:00,2024-03-05 11:00,2"]
    write(tmp_path, "timestamp,known_at,close", *late, "2024-03-06 10:00,2024-03-06 10:00,", name="context/C.csv")
    context = source.read_context("C")
    # The value of the 4th came out when that of the 5th was known: it is never the newest. An empty one is none.
    assert stamps(context) == ["2024-03-05 10:00"] and stamps(context, "known_at") == ["2024-03-05 11:00"]


def test_context_known_before_its_time_is_refused(tmp_path: Path, files) -> None:
    write(tmp_path, "timestamp,known_at,close", "2024-03-04 10:00,2024-03-04 09:59,1", name="context/C.csv")
    with pytest.raises(DataError, match=r"^context/C.csv: known_at must not be before the time itself"):
        files(context_path="context").read_context("C")


def test_context_without_a_path_is_refused(files) -> None:
    with pytest.raises(ConfigError, match=r"context 'C' needs files\.context_path"):
        files().read_context("C")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), st.floats(1, 9)), min_size=1, max_size=25))
def test_a_context_frame_holds_the_newest_known_value_of_any_moment(rows: list[tuple[int, int, float]]) -> None:
    """Against a walk over all rows: nothing that is left out was ever the newest value known."""
    unique = {row[0]: row for row in rows}  # one value a time
    day = np.datetime64("2024-01-01", "us")
    at = day + np.array([row[0] for row in unique.values()], dtype="timedelta64[D]")
    known = at + np.array([row[1] for row in unique.values()], dtype="timedelta64[D]")
    close = np.array([row[2] for row in unique.values()])
    frame = context_frame(at, known, close, shown="C")
    assert frame["known_at"].is_monotonic_increasing and frame["timestamp"].is_monotonic_increasing
    for moment in day + np.arange(27).astype("timedelta64[D]"):
        visible = [(at[i], close[i]) for i in range(len(at)) if known[i] <= moment]
        left = frame[frame["known_at"] <= pd.Timestamp(moment, tz="UTC")]
        assert (left["close"].iloc[-1] if len(left) else None) == (max(visible)[1] if visible else None)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0.01, 1e6), min_size=5, max_size=5), st.floats(1e-3, 1e3))
def test_adjustment_scales_prices_and_keeps_turnover(values: list[float], factor: float) -> None:
    columns = dict(zip(COLUMNS[1:], (np.array([v]) for v in values), strict=True))
    adjusted = adjust(columns, columns["close"] * factor)
    for name in ("open", "high", "low", "close"):
        assert adjusted[name][0] == pytest.approx(columns[name][0] * factor, rel=1e-12)
    assert adjusted["close"] * adjusted["volume"] == pytest.approx(columns["close"] * columns["volume"], rel=1e-12)


def test_adjustment_of_a_zero_close_is_left_for_the_check(recwarn: pytest.WarningsRecorder) -> None:
    columns = {name: np.array([0.0, 1.0]) for name in COLUMNS[1:]}
    assert not np.isfinite(adjust(columns, np.array([0.0, 1.0]))["close"][0])
    assert not recwarn.list


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=9))
def test_numbers_survive_a_csv_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("close\n" + "\n".join(map(repr, values)) + "\n")
    np.testing.assert_array_equal(read_table(path, shown="x")["close"], values)


def test_parquet_times_may_be_of_any_unit_and_zone(tmp_path: Path) -> None:
    moment = pd.Series(pd.to_datetime(["2024-03-04 10:00"]))
    for column in (moment, moment.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"), moment.dt.as_unit("ms")):
        pd.DataFrame({"timestamp": column}).to_parquet(tmp_path / "x.parquet")
        table = read_table(tmp_path / "x.parquet", shown="x")
        assert times(table, TableFormat(), shown="x")[0] == np.datetime64("2024-03-04T10:00")
