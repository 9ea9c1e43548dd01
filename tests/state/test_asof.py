"""The offline store inside Feast: its edge cases, and row for row against Feast's own duckdb store."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from tradeloop.atomic import write_parquet
from tradeloop.errors import StoreError
from tradeloop.state.feast_import import import_feast

START = pd.Timestamp("2020-01-01", tz="UTC")
OURS = "tradeloop.state.asof.AsOfOfflineStore"


def at(hours: Any) -> pd.Series:
    return pd.Series(START + pd.to_timedelta(np.asarray(hours, dtype=float), unit="h")).dt.as_unit("us")


def rows_of(records: list[tuple[str, int, int]], name: str = "value") -> pd.DataFrame:
    symbols, events, created = zip(*records, strict=True)
    return pd.DataFrame(
        {
            "symbol": list(symbols),
            "timestamp": at(events),
            "created": at(created),
            name: np.arange(len(records), dtype=np.float32),
        }
    )


def entities_of(records: list[tuple[str, int]]) -> pd.DataFrame:
    symbols, times = zip(*records, strict=True)
    return pd.DataFrame({"symbol": list(symbols), "event_timestamp": at(times), "place": range(len(records))})


@pytest.fixture
def repo(tmp_path: Path) -> Callable[..., Any]:
    """Build a store with `offline_store` of the type given; files are `first.parquet` and `second.parquet`."""

    def build(kind: str, ttl: timedelta = timedelta(0), *, files: Path = tmp_path, **options: Any) -> Any:
        import_feast()
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.types import Float32, String

        store = FeatureStore(
            config=RepoConfig(
                project="test",
                provider="local",
                registry=str(tmp_path / f"{kind}{ttl.total_seconds():.0f}.db"),
                offline_store={"type": kind},
                online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
                entity_key_serialization_version=3,
                repo_path=tmp_path,
            )
        )
        symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
        views = [
            FeatureView(
                name=name,
                entities=[symbol],
                schema=[Field(name="symbol", dtype=String), Field(name=feature, dtype=Float32)],
                source=FileSource(
                    name=name,
                    path=str(files / f"{name}.parquet"),
                    timestamp_field="timestamp",
                    created_timestamp_column="created",
                    **options,
                ),
                ttl=ttl,
            )
            for name, feature in (("first", "value"), ("second", "other"))
        ]
        store.apply([symbol, *views])
        return store

    return build


def test_keeps_every_entity_row_in_order_with_its_columns(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1), ("B", 2, 2)]))
    entities = entities_of([("B", 5), ("A", 0), ("A", 3), ("C", 3), ("A", 3)])
    got = repo(OURS).get_historical_features(entities, ["first:value"]).to_df()
    pd.testing.assert_frame_equal(got[["symbol", "event_timestamp", "place"]], entities, check_dtype=False)
    np.testing.assert_array_equal(got["value"], np.array([1, np.nan, 0, np.nan, 0], dtype=np.float32))
    assert got["value"].dtype == np.float32
    assert list(entities.columns) == ["symbol", "event_timestamp", "place"], "the caller's frame is left alone"


def test_created_cutoff_is_on_without_asking(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1), ("A", 1, 4)]))
    store = repo(OURS)
    entities = entities_of([("A", 3), ("A", 4)])
    for asked in (False, True):
        job = store.get_historical_features(entities, ["first:value"], filter_by_created_timestamp=asked)
        assert job.to_df()["value"].tolist() == [0, 1]


def test_ttl_of_the_view_is_honoured(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 0, 0)]))
    got = repo(OURS, timedelta(hours=2)).get_historical_features(entities_of([("A", 2), ("A", 3)]), ["first:value"])
    assert got.to_df()["value"].isna().tolist() == [False, True]


@pytest.mark.parametrize("unit", ["us", "ns", "ms", "s"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_entity_times_of_any_unit_and_zone(repo, tmp_path, unit, zone) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1)]))
    entities = entities_of([("A", 0), ("A", 1)])
    times = entities["event_timestamp"].dt.as_unit(unit)
    entities["event_timestamp"] = times.dt.tz_localize(None) if zone is None else times.dt.tz_convert(zone)
    got = repo(OURS).get_historical_features(entities, ["first:value"]).to_df()
    assert got["value"].isna().tolist() == [True, False]
    assert (got["event_timestamp"] == at([0, 1])).all()


def test_times_may_be_text_and_the_column_may_have_another_name(repo, tmp_path, capsys) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1)]))
    store = repo(OURS)
    text = pd.DataFrame({"symbol": ["A"], "event_timestamp": ["2020-01-01T01:00:00+00:00"]})
    assert store.get_historical_features(text, ["first:value"]).to_df()["value"].tolist() == [0]
    named = entities_of([("A", 1)]).rename(columns={"event_timestamp": "bar_close"})
    assert store.get_historical_features(named, ["first:value"]).to_df()["value"].tolist() == [0]
    assert "bar_close" in capsys.readouterr().out


def test_several_views_and_full_names(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1)]))
    write_parquet(tmp_path / "second.parquet", rows_of([("A", 1, 1), ("A", 2, 2)], "other"))
    job = repo(OURS).get_historical_features(
        entities_of([("A", 1), ("A", 3)]), ["second:other", "first:value"], full_feature_names=True
    )
    got = job.to_df()
    assert got["first__value"].tolist() == [0, 0]
    assert got["second__other"].tolist() == [0, 1]
    assert job.metadata.min_event_timestamp == START + pd.Timedelta(hours=1)


def test_a_categorical_key_matches(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1), ("B", 1, 1)]))
    entities = entities_of([("B", 1), ("A", 1)])
    entities["symbol"] = entities["symbol"].astype("category")
    assert repo(OURS).get_historical_features(entities, ["first:value"]).to_df()["value"].tolist() == [1, 0]


def test_a_folder_is_read_file_by_file_and_parts_being_written_are_not(repo, tmp_path) -> None:
    folder = tmp_path / "first.parquet"  # a folder may be called so
    write_parquet(folder / "A.parquet", rows_of([("A", 1, 1)]))
    write_parquet(folder / "B.parquet", rows_of([("B", 1, 1), ("B", 2, 2)]))
    (folder / ".C.parquet.tmp123").write_bytes(b"half")
    got = repo(OURS).get_historical_features(entities_of([("A", 2), ("B", 2)]), ["first:value"]).to_df()
    assert got["value"].tolist() == [0, 1]


def test_field_mapping(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1)], "stored"))
    store = repo(OURS, field_mapping={"stored": "value"})
    assert store.get_historical_features(entities_of([("A", 1)]), ["first:value"]).to_df()["value"].tolist() == [0]


@pytest.mark.filterwarnings("ignore:On demand feature view is an experimental:RuntimeWarning")
def test_on_demand_views_are_computed_from_the_join(repo, tmp_path) -> None:
    from feast import Field
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1), ("A", 2, 2)]))
    store = repo(OURS)

    @on_demand_feature_view(
        sources=[store.get_feature_view("first")], schema=[Field(name="doubled", dtype=Float64)], mode="pandas"
    )
    def doubling(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"doubled": inputs["value"].astype("float64") * 2})

    store.apply([doubling])
    got = store.get_historical_features(entities_of([("A", 2)]), ["first:value", "doubling:doubled"]).to_df()
    assert got["doubled"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "holds no parquet files"),
        (lambda path: write_parquet(path, rows_of([("A", 1, 1)], "another")), "has no column 'value'"),
        (lambda path: path.write_bytes(b"PAR1 not really"), "not readable"),
    ],
)
def test_unusable_files_are_one_line(repo, tmp_path, spoil, message) -> None:
    path = tmp_path / "first.parquet"
    write_parquet(path, rows_of([("A", 1, 1)]))
    store = repo(OURS)
    spoil(path)
    with pytest.raises(StoreError, match=message) as error:
        store.get_historical_features(entities_of([("A", 1)]), ["first:value"]).to_df()
    assert "\n" not in str(error.value)


def test_one_broken_file_among_good_ones_is_one_line(repo, tmp_path) -> None:
    folder = tmp_path / "first.parquet"
    write_parquet(folder / "A.parquet", rows_of([("A", 1, 1)]))
    write_parquet(folder / "B.parquet", rows_of([("B", 1, 1)]))
    whole = (folder / "B.parquet").read_bytes()
    (folder / "B.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="not readable"):
        repo(OURS).get_historical_features(entities_of([("A", 1), ("B", 1)]), ["first:value"]).to_df()


def test_refuses_what_it_cannot_join(repo, tmp_path) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1)]))
    store = repo(OURS)
    with pytest.raises(StoreError, match="need an entity frame"):
        store.get_historical_features("select 1", ["first:value"])
    with pytest.raises(StoreError, match="'value' of first is there already"):
        store.get_historical_features(entities_of([("A", 1)]).assign(value=1.0), ["first:value"]).to_df()


def test_pull_latest_and_pull_all(repo, tmp_path) -> None:
    from tradeloop.state.asof import AsOfOfflineStore

    write_parquet(
        tmp_path / "first.parquet",
        rows_of([("A", 1, 1), ("A", 3, 3), ("A", 3, 9), ("A", 5, 5), ("B", 2, 2), ("C", 0, 0)]),
    )
    store = repo(OURS)
    source = store.get_feature_view("first").batch_source
    span = (START + pd.Timedelta(hours=1), START + pd.Timedelta(hours=4))
    latest = AsOfOfflineStore.pull_latest_from_table_or_query(
        store.config, source, ["symbol"], ["value"], "timestamp", "created", *span
    ).to_df()
    assert dict(zip(latest["symbol"], latest["value"], strict=True)) == {"A": 1, "B": 4}, "as known at the end of it"
    everything = AsOfOfflineStore.pull_all_from_table_or_query(
        store.config, source, ["symbol"], ["value"], "timestamp", "created", *span
    ).to_df()
    assert sorted(everything["value"]) == [0, 1, 2, 4]
    job = AsOfOfflineStore.pull_all_from_table_or_query(store.config, source, ["symbol"], ["value"], "timestamp")
    assert isinstance(job.to_arrow(), pa.Table)
    assert job.to_arrow().num_rows == 6


def test_materialize_reads_through_it(repo, tmp_path, capsys) -> None:
    write_parquet(tmp_path / "first.parquet", rows_of([("A", 1, 1), ("A", 3, 3), ("A", 9, 9)]))
    store = repo(OURS)
    store.materialize(START, START + pd.Timedelta(hours=5), feature_views=["first"])
    answer = store.get_online_features(["first:value"], [{"symbol": "A"}, {"symbol": "Z"}]).to_dict()
    assert answer["value"] == [1.0, None]


def duckdb_answer(store: Any, entities: pd.DataFrame, refs: list[str]) -> pd.DataFrame:
    job = store.get_historical_features(entities, refs, filter_by_created_timestamp=True)
    return job.to_df().sort_values("place", ignore_index=True)


def split_up(folder: Path, rows: pd.DataFrame, cuts: list[int]) -> None:
    """Write rows to several files, some of them in folders, in order."""
    shutil.rmtree(folder, ignore_errors=True)
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for number, (start, stop) in enumerate(pairwise(edges)):
        inside = folder if number == 0 else folder / f"{number}"
        write_parquet(inside / "rows.parquet", rows[start:stop].reset_index(drop=True))


def test_equals_feasts_duckdb_store(repo, tmp_path) -> None:
    """Row for row on random small markets; ties of (event, created), where duckdb picks either, are not made.

    Entity rows may be of unknown symbols, twice the same, and in any time zone; ours reads several files, duckdb one.
    """
    small = st.integers(0, 7)
    mine = functools.cache(lambda ttl: repo(OURS, timedelta(hours=ttl), files=tmp_path / "split"))
    theirs = functools.cache(lambda ttl: repo("duckdb", timedelta(hours=ttl)))

    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(
        st.lists(st.tuples(st.sampled_from("ABC"), small), min_size=5, max_size=10),
        st.lists(st.tuples(st.sampled_from("AB"), small, small), min_size=6, max_size=12, unique=True),
        st.lists(st.tuples(st.sampled_from("AB"), small, small), min_size=6, max_size=12, unique=True),
        st.sampled_from([0, 1, 4]),
        st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]),
        st.lists(st.integers(0, 12), max_size=3),
    )
    def check(entities, first, second, ttl, zone, cuts) -> None:
        for name, rows in (("first", rows_of(first)), ("second", rows_of(second, "other"))):
            write_parquet(tmp_path / f"{name}.parquet", rows)
            split_up(tmp_path / "split" / f"{name}.parquet", rows, cuts)
        frame = entities_of([*entities, entities[0]])
        frame["event_timestamp"] = frame["event_timestamp"].dt.tz_convert(zone)
        refs = ["first:value", "second:other"]
        ours = mine(ttl).get_historical_features(frame, refs).to_df()
        expected = duckdb_answer(theirs(ttl), frame, refs)
        assert ours["place"].tolist() == frame["place"].tolist()
        assert (ours["event_timestamp"] == frame["event_timestamp"]).all()
        for column in ("symbol", "value", "other"):
            assert ours[column].equals(expected[column].astype(ours[column].dtype)), column

    check()


def in_force(rows: list[tuple[str, int, int]], symbol: str, hour: int, ttl: int) -> float:
    """Look at every row: the newest by event time, then by created time, then by place, of those known by then."""
    known = [(event, created, place) for place, (of, event, created) in enumerate(rows) if of == symbol]
    visible = [row for row in known if max(row[:2]) <= hour]
    if not visible:
        return np.nan
    event, _, place = max(visible)
    return float(place) if not ttl or event + ttl >= hour else np.nan


def test_equals_a_search_of_every_row(repo, tmp_path) -> None:
    """Two views with ties and restatements among their rows, over files split anywhere, in plain Python."""
    small = st.integers(0, 9)
    rows = st.lists(st.tuples(st.sampled_from("AB"), small, small), min_size=1, max_size=14)
    store = functools.cache(lambda ttl: repo(OURS, timedelta(hours=ttl)))

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.tuples(st.sampled_from("ABC"), small), min_size=1, max_size=12),
        rows,
        rows,
        st.sampled_from([0, 2]),
        st.sampled_from([None, "UTC", "Europe/London", "Australia/Lord_Howe"]),
        st.lists(st.integers(0, 14), max_size=3),
    )
    def check(entities, first, second, ttl, zone, cuts) -> None:
        split_up(tmp_path / "first.parquet", rows_of(first), cuts)
        split_up(tmp_path / "second.parquet", rows_of(second, "other"), cuts)
        frame = entities_of(entities)
        times = frame["event_timestamp"]
        frame["event_timestamp"] = times.dt.tz_localize(None) if zone is None else times.dt.tz_convert(zone)
        got = store(ttl).get_historical_features(frame, ["second:other", "first:value"]).to_df()
        for column, source in (("value", first), ("other", second)):
            expected = [in_force(source, symbol, hour, ttl) for symbol, hour in entities]
            np.testing.assert_array_equal(got[column], np.array(expected, dtype=np.float32))

    check()
