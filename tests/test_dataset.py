"""The training matrix: what goes in, what is left out and why, and that nothing shifts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.dataset import dataset
from tests.admissions import write_admission
from tests.feature_files import write_rows
from tradeloop.atomic import write_parquet
from tradeloop.config import TARGETS, Params, load_params
from tradeloop.dataset import REASONS, build_matrix, data_hash, load_matrix
from tradeloop.errors import DataError, SchemaMismatch, StoreError
from tradeloop.layout import Layout
from tradeloop.schema import Schema

SCHEMA = Schema("us_daily", ("alpha", "beta"), "d" * 64)
DAYS = pd.date_range("2020-01-01 21:00", periods=6, freq="D", tz="UTC").as_unit("us")

SECOND = pd.Timedelta("1s").as_unit("us")


@pytest.fixture
def params() -> Params:
    read = load_params(Path(__file__).resolve().parents[1] / "params.yaml")
    market = read.active.model_copy(update={"symbols": ["AAA", "BBB"]})
    return read.model_copy(update={"markets": {read.market: market}})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Two symbols, six bars, no row incomplete but each symbol's last, whose label has not ended."""
    layout = Layout(tmp_path)
    SCHEMA.save(layout.store / "schema.json")
    for symbol, base in (("AAA", 0.0), ("BBB", 100.0)):
        write_rows(layout.features, symbol, features(symbol, base))
        write_parquet(layout.labels / f"{symbol}.parquet", labels(symbol, base))
    write_admission(layout)
    return layout


def features(symbol: str, base: float) -> pd.DataFrame:
    rows = np.arange(6, dtype=np.float32)
    return pd.DataFrame(
        {"symbol": symbol, "timestamp": DAYS, "created": DAYS, "alpha": rows + np.float32(base), "beta": -rows}
    )


def labels(symbol: str, base: float) -> pd.DataFrame:
    rows = np.arange(6, dtype=np.float64)
    frame = pd.DataFrame(
        {
            "symbol": symbol,
            "timestamp": DAYS,
            "label_end": pd.Series(DAYS).shift(-1),
            "direction": rows % 2,
            "return": rows / 100 + base,
            "range": -rows,
        }
    )
    frame.loc[5, list(TARGETS)] = np.nan
    return frame


def change(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    frame = pd.read_parquet(path)
    edited = edit(frame)
    write_parquet(path, frame if edited is None else edited)


def test_each_label_stands_beside_its_own_features(layout: Layout, params: Params) -> None:
    dataset(layout, params)
    matrix = load_matrix(layout)
    assert len(matrix) == 10
    assert matrix.symbol.tolist() == ["AAA", "BBB"] * 5, "sorted by time, then symbol"
    np.testing.assert_array_equal(matrix.timestamp, DAYS[:5].tz_localize(None).to_numpy("datetime64[us]").repeat(2))
    np.testing.assert_array_equal(matrix.label_end, DAYS[1:].tz_localize(None).to_numpy("datetime64[us]").repeat(2))
    day = np.arange(5).repeat(2)
    base = np.tile([0, 100], 5)
    np.testing.assert_array_equal(matrix.x, np.column_stack([day + base, -day]).astype(np.float32))
    assert matrix.x.dtype == np.float32 and matrix.x.flags.c_contiguous
    np.testing.assert_allclose(matrix.y["return"], day / 100 + base)
    np.testing.assert_array_equal(matrix.y["direction"], day % 2)
    np.testing.assert_array_equal(matrix.y["range"], -day)
    assert matrix.schema == SCHEMA


def drop_reasons(layout: Layout, params: Params) -> dict[str, int]:
    report = build_matrix(layout, params, SCHEMA)[1]
    assert sum(report["dropped"].values()) + report["rows"] == 12
    assert list(report["dropped"]) == list(REASONS)
    return {name: count for name, count in report["dropped"].items() if count}


def test_report(layout: Layout, params: Params) -> None:
    report = build_matrix(layout, params, SCHEMA)[1]
    assert report == {
        "rows": 10,
        "features": 2,
        "rows_by_symbol": {"AAA": 5, "BBB": 5},
        "dropped": {name: 2 if name == "label_not_ended" else 0 for name in REASONS},
        "first": "2020-01-01T21:00:00+00:00",
        "last": "2020-01-05T21:00:00+00:00",
        "last_label_end": "2020-01-06T21:00:00+00:00",
    }


def test_a_day_that_is_held_back(layout: Layout, params: Params) -> None:
    """The rows of the day itself, and the one whose label ends in it."""
    write_admission(layout, held=[("AAA", "2020-01-03T00:00", "2020-01-04T00:00")])
    assert drop_reasons(layout, params) == {"label_not_ended": 2, "quarantined": 2}
    left = build_matrix(layout, params, SCHEMA)[0].query("symbol == 'AAA'")["timestamp"]
    assert left.tolist() == [DAYS[0], DAYS[3], DAYS[4]]


def test_marked_bars_are_learnt_from_unless_their_rule_is_excluded(layout: Layout, params: Params) -> None:
    marks = [("BBB", str(DAYS[2]), "jump"), ("BBB", str(DAYS[4]), "stale"), ("AAA", str(DAYS[5]), "stale")]
    write_admission(layout, marks=marks)
    assert drop_reasons(layout, params) == {"label_not_ended": 2}
    for rules, dropped in ((["jump"], 2), (["stale"], 3), (["jump", "stale"], 5), (["split"], 0)):
        check = params.check.model_copy(update={"exclude_marked": rules})
        reasons = drop_reasons(layout, params.model_copy(update={"check": check}))
        assert reasons.get("marked", 0) == dropped, rules


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_warm_up(layout: Layout, params: Params, value: float) -> None:
    change(
        layout.features / "AAA" / "2020.parquet", lambda f: f.__setitem__("beta", f["beta"].where(f.index > 1, value))
    )
    assert drop_reasons(layout, params) == {"label_not_ended": 2, "warm_up": 2}


def test_a_label_that_is_not_finite(layout: Layout, params: Params) -> None:
    """The logarithm of a bar without range."""
    change(layout.labels / "AAA.parquet", lambda f: f.__setitem__("range", f["range"].where(f.index != 2, -np.inf)))
    assert drop_reasons(layout, params) == {"label_not_ended": 2, "label_undefined": 1}


def test_an_older_feature_row_is_not_taken_for_the_bars_own(layout: Layout, params: Params) -> None:
    """The as-of join would fill the hole with yesterday's row: a silent shift."""
    change(layout.features / "AAA" / "2020.parquet", lambda f: f.drop(index=3))
    assert drop_reasons(layout, params) == {"label_not_ended": 2, "stale_features": 1}
    frame = build_matrix(layout, params, SCHEMA)[0]
    assert DAYS[3] not in set(frame.loc[frame["symbol"] == "AAA", "timestamp"])


def test_a_feature_row_written_after_its_bar_is_not_used(layout: Layout, params: Params) -> None:
    change(layout.features / "AAA" / "2020.parquet", lambda f: f.__setitem__("created", f["created"] + SECOND))
    assert drop_reasons(layout, params) == {"label_not_ended": 2, "no_features": 1, "stale_features": 4}


def test_no_features(layout: Layout, params: Params) -> None:
    change(layout.features / "AAA" / "2020.parquet", lambda f: f[f.index > 1])
    assert drop_reasons(layout, params) == {"label_not_ended": 2, "no_features": 2}


@pytest.mark.parametrize(
    ("period", "outside"),
    [
        ({"start": "2020-01-03"}, 4),
        ({"start": "2020-01-03T21:00:00+00:00"}, 4),
        ({"start": "2020-01-03T16:00:01-05:00"}, 6),
        ({"end": "2020-01-04T21:00:00"}, 6),  # a label that ends then is in: rows of the 1st to the 3rd
        ({"end": "2020-01-04T20:59:59"}, 8),
        ({"start": "2020-01-02", "end": "2020-01-05"}, 8),
    ],
)
def test_nothing_outside_the_period_is_used(
    layout: Layout, params: Params, period: dict[str, str], outside: int
) -> None:
    limited = params.model_copy(update={"dataset": type(params.dataset).model_validate(period)})
    frame, report = build_matrix(layout, limited, SCHEMA)
    assert report["dropped"]["outside_period"] == outside
    start, end = (pd.Timestamp(period.get(key, default)) for key, default in (("start", "1990"), ("end", "2100")))
    start, end = (t.tz_localize("UTC") if t.tz is None else t for t in (start, end))
    assert (frame["timestamp"] >= start).all() and (frame["label_end"] <= end).all()


def test_nothing_left_says_why(layout: Layout, params: Params) -> None:
    far = params.model_copy(update={"dataset": type(params.dataset).model_validate({"start": "2030-01-01"})})
    with pytest.raises(DataError, match="none of 12 labelled rows is complete: outside_period 12"):
        build_matrix(layout, far, SCHEMA)


def test_refusals(layout: Layout, params: Params) -> None:
    whole = pd.read_parquet(layout.labels / "AAA.parquet")
    change(layout.labels / "AAA.parquet", lambda f: pd.concat([f, f.iloc[[2]]]))
    with pytest.raises(DataError, match=r"AAA at 2020-01-03 21:00:00\+00:00 is labelled twice; 1 such rows"):
        build_matrix(layout, params, SCHEMA)
    write_parquet(layout.labels / "AAA.parquet", whole)
    with pytest.raises(StoreError, match="has no column 'gamma': it was made under another schema"):
        build_matrix(layout, params, Schema("us_daily", ("alpha", "gamma"), "e" * 64))
    (layout.labels / "BBB.parquet").unlink()
    with pytest.raises(DataError, match=r"BBB\.parquet is missing: run `python -m stages\.labels` first"):
        build_matrix(layout, params, SCHEMA)


def test_the_stage_writes_the_same_bytes_again(layout: Layout, params: Params) -> None:
    outputs = [layout.training / "matrix.parquet", layout.training / "schema.json", layout.reports / "dataset.json"]
    dataset(layout, params)
    first = [path.read_bytes() for path in outputs]
    (layout.live / "feast" / "registry.db").unlink()
    dataset(layout, params)
    assert [path.read_bytes() for path in outputs] == first


def test_load_matrix_refuses_what_is_not_one(layout: Layout, params: Params) -> None:
    path = layout.training / "matrix.parquet"
    with pytest.raises(DataError, match=r"matrix\.parquet is missing"):
        load_matrix(layout)
    dataset(layout, params)
    whole = pd.read_parquet(path)
    for edit, error, message in (
        (lambda f: f[::-1], DataError, "is not sorted by time"),
        (lambda f: f.assign(alpha=np.float32("nan")), DataError, "not finite"),
        (lambda f: f.assign(range=np.inf), DataError, "not finite"),
        (
            lambda f: f.rename(columns={"alpha": "omega"}),
            SchemaMismatch,
            "other columns than feature schema dddddddddddd",
        ),
        (lambda f: f[["symbol", "timestamp", "label_end", "beta", "alpha", *TARGETS]], SchemaMismatch, "other columns"),
    ):
        write_parquet(path, edit(whole))
        with pytest.raises(error, match=message):
            load_matrix(layout)


def test_data_hash_is_of_the_content(layout: Layout, params: Params) -> None:
    dataset(layout, params)
    path = layout.training / "matrix.parquet"
    whole, digest = pd.read_parquet(path), data_hash(layout)
    whole.to_parquet(path, index=False, compression="gzip")
    assert data_hash(layout) == digest
    seen = {digest}
    for column in whole.columns:
        changed = whole.copy()
        if column == "symbol":
            changed.loc[0, column] = "AAC"
        elif column in ("timestamp", "label_end"):
            changed.loc[0, column] -= pd.Timedelta("1us")
        else:
            changed.loc[0, column] += 1
        write_parquet(path, changed)
        seen.add(data_hash(layout))
    assert len(seen) == 1 + len(whole.columns), "each column counts"
