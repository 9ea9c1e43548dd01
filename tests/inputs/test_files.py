from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from tests.inputs.conftest import DAY, GOOD, at, rows
from tradeloop.bars import TIME, to_times
from tradeloop.config import InputFiles, InputKind, Market
from tradeloop.errors import DataError
from tradeloop.inputs.contract import KINDS
from tradeloop.inputs.files import canonical, file_of, read_file, read_kind

FILES = InputFiles(path="in")


def table(kind: InputKind, **columns: object) -> pd.DataFrame:
    """Return a file's content: two good rows at 10:00 and 10:01, known 2 s later."""
    times = [f"{DAY}T10:00:00Z", f"{DAY}T10:01:00Z"]
    known = [f"{DAY}T10:00:02Z", f"{DAY}T10:01:02Z"]
    frame = pd.DataFrame({"timestamp": times, "known_at": known, **GOOD[kind]})
    return frame.assign(**columns)


def put(folder: Path, frame: pd.DataFrame, name: str = "X.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        text = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    return path


def read(folder: Path, kind: InputKind, files: InputFiles = FILES, **columns: object) -> pd.DataFrame:
    return read_file(kind, files, put(folder, table(kind, **columns)), shown="in/X.csv")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["X.csv", "X.csv.gz", "X.parquet"])
def test_every_kind_is_read_from_every_format(tmp_path: Path, kind: InputKind, name: str) -> None:
    frame = read_file(kind, FILES, put(tmp_path, table(kind), name), shown=name)
    assert list(frame.columns) == ["timestamp", "known_at", *KINDS[kind].columns]
    assert {str(frame[column].dtype) for column in ("timestamp", "known_at")} == {TIME}
    assert frame.iloc[0, 2:].tolist() == list(GOOD[kind].values())
    assert to_times(frame["known_at"]).tolist() == at("10:00:02", "10:01:02").tolist()
    pd.testing.assert_frame_equal(canonical(kind, frame, shown="again"), frame)


def test_rows_stand_in_the_order_in_which_they_became_known(tmp_path: Path) -> None:
    late = [f"{DAY}T10:09:00Z", f"{DAY}T10:01:02Z"]
    frame = read(tmp_path, "trades", known_at=late, price=[1.0, 2.0])
    assert frame["price"].tolist() == [2.0, 1.0]


def test_without_known_at_a_row_is_known_at_its_own_time(tmp_path: Path) -> None:
    path = put(tmp_path, table("trades").drop(columns="known_at"))
    frame = read_file("trades", FILES, path, shown="X")
    assert frame["known_at"].equals(frame["timestamp"])


def test_scheduled_events_must_say_since_when_they_were_known(tmp_path: Path) -> None:
    path = put(tmp_path, table("events").drop(columns="known_at"))
    with pytest.raises(DataError, match="X: events must say in 'known_at' since when each row was known"):
        read_file("events", FILES, path, shown="X")


def test_an_event_and_a_funding_rate_may_be_known_before_their_time(tmp_path: Path) -> None:
    before = [f"{DAY}T08:00:00Z", f"{DAY}T09:00:00Z"]
    for kind in ("events", "funding"):
        assert len(read(tmp_path, kind, known_at=before)) == 2
    with pytest.raises(DataError, match=r"in/X.csv line 2 at .*10:00:00.*: known_at must not be before timestamp, got"):
        read(tmp_path, "trades", known_at=before)


def test_what_may_be_missing_has_something_in_its_place(tmp_path: Path) -> None:
    def without(kind: InputKind, *columns: str) -> pd.Series:
        path = put(tmp_path, table(kind).drop(columns=list(columns)))
        return read_file(kind, FILES, path, shown="X").iloc[0]

    book = without("book", "bid_depth", "ask_depth")
    assert (book["bid_depth"], book["ask_depth"]) == (2.0, 3.0)
    assert without("trades", "side")["side"] == 0
    assert without("funding", "hours")["hours"] == 8
    assert without("events", "importance")["importance"] == 2
    assert without("news", "count")["count"] == 1


def test_a_required_column_that_is_missing_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, table("trades").drop(columns="size"))
    with pytest.raises(DataError, match="X: column 'size' is missing"):
        read_file("trades", FILES, path, shown="X")


def test_a_column_that_the_market_is_without_is_not_looked_for(tmp_path: Path) -> None:
    path = put(tmp_path, table("options").drop(columns="far_iv"))
    frame = read_file("options", FILES.model_copy(update={"without": ["far_iv"]}), path, shown="X")
    assert frame["far_iv"].isna().all() and frame["atm_iv"].tolist() == [0.5, 0.5]


def test_columns_and_times_may_have_other_names_and_formats(tmp_path: Path) -> None:
    written = pd.DataFrame({"T": [1709546400000], "seen": [1709546401000], "px": [5.0], "size": [2.0]})
    files = InputFiles(path="x", timestamp="T", known_at="seen", timestamp_format="ms", columns={"price": "px"})
    frame = read_file("trades", files, put(tmp_path, written), shown="X")
    assert frame["price"].tolist() == [5.0]
    assert to_times(frame["timestamp"]).tolist() == at("10:00").tolist()
    assert to_times(frame["known_at"]).tolist() == at("10:00:01").tolist()
    local = InputFiles(path="x", timezone="America/New_York")
    times = [f"{DAY} 05:00", f"{DAY} 05:01"]
    frame = read(tmp_path, "trades", local, timestamp=times, known_at=times)
    assert to_times(frame["timestamp"]).tolist() == at("10:00", "10:01").tolist()


BROKEN = [
    ("book", "bid_size", 0.0, "bid_size must be positive, got bid_size = 0.0"),
    ("book", "ask_price", 99.0, "ask_price must be above bid_price, got bid_price = 99.0, ask_price = 99.0"),
    ("book", "bid_depth", 1.0, "bid_depth must not be below bid_size, got bid_size = 2.0, bid_depth = 1.0"),
    ("book", "ask_depth", 1.0, "ask_depth must not be below ask_size, got ask_size = 3.0, ask_depth = 1.0"),
    ("trades", "price", -1.0, "price must be positive, got price = -1.0"),
    ("trades", "side", 2.0, r"side must be 1 \(the buyer took\), -1 \(the seller took\) or 0 \(not known\), got"),
    ("trades", "size", float("nan"), "size must be positive, got size = nan"),
    ("funding", "rate", 1.5, "rate must be a fraction between -1 and 1, got rate = 1.5"),
    ("funding", "hours", 0.0, "hours must be above 0 and at most 168 hours, got hours = 0.0"),
    ("liquidations", "long", -5.0, "long must not be negative, got long = -5.0"),
    ("options", "atm_iv", 45.0, "atm_iv must be an annual volatility as a fraction, above 0 and at most 10, got"),
    ("options", "put_volume", -1.0, "put_volume must not be negative"),
    ("events", "importance", 4.0, r"importance must be 1, 2, 3, or 0 \(called off\), got importance = 4.0"),
    ("events", "id", 1.5, "id must be a whole number, 0 or more, got id = 1.5"),
    ("news", "count", float("inf"), "count must be a whole number, 0 or more, got count = inf"),
]


@pytest.mark.parametrize(("kind", "column", "value", "said"), BROKEN, ids=lambda x: str(x)[:20])
def test_a_broken_rule_names_file_line_time_value_and_rule(
    tmp_path: Path, kind: InputKind, column: str, value: float, said: str
) -> None:
    good = GOOD[kind][column]
    with pytest.raises(DataError, match=rf"^in/X.csv line 3 at {DAY} 10:01:00\+00:00: {said}"):
        read(tmp_path, kind, **{column: [good, value]})


def test_more_broken_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2 .* got price = 0.0 \(and 1 more\)$"):
        read(tmp_path, "trades", price=[0.0, 0.0])


def test_a_frame_of_another_shape_is_refused() -> None:
    frame = rows("trades", at("10:00"))
    with pytest.raises(DataError, match="f: price must be float64, got int64"):
        canonical("trades", frame.assign(price=[1]), shown="f")
    with pytest.raises(DataError, match=r"f: known_at must be .*, got nothing"):
        canonical("trades", frame.drop(columns="known_at"), shown="f")


def test_a_file_is_found_by_folder_template_or_itself(tmp_path: Path) -> None:
    put(tmp_path / "in", table("news"), "X.csv")
    assert file_of(FILES, tmp_path, "X", name="news") == tmp_path / "in" / "X.csv"
    assert file_of(InputFiles(path="a/{symbol}_n.csv"), tmp_path, "X", name="news") == tmp_path / "a" / "X_n.csv"
    assert file_of(InputFiles(path="in/X.csv"), tmp_path, "Y", name="news") == tmp_path / "in" / "X.csv"
    with pytest.raises(DataError, match=r"inputs\.news: in must hold one of Y\.parquet, .*, it holds 0 of them"):
        file_of(FILES, tmp_path, "Y", name="news")
    put(tmp_path / "in", table("news"), "X.parquet")
    with pytest.raises(DataError, match="it holds 2 of them"):
        file_of(FILES, tmp_path, "X", name="news")


def test_a_message_names_the_file_as_params_does(tmp_path: Path) -> None:
    market = Market(source="synthetic", symbols=["X"], calendar="24/7", interval="1h", inputs={"news": FILES})
    put(tmp_path / "in", table("news", count=[1, -1]))
    with pytest.raises(DataError, match=r"^in/X\.csv line 3"):
        read_kind("news", market, tmp_path, "X")
