"""The join out of core: however the rows are spread over files, and read, it is the join of them all."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given, settings

from tradeloop.compute.backend import Local
from tradeloop.errors import StoreError
from tradeloop.state import asof_blocks
from tradeloop.state.asof_blocks import TIME, Join, join_blocks
from tradeloop.state.asof_join import asof_join
from tradeloop.state.asof_source import Source

START = datetime(2020, 1, 1, tzinfo=UTC)
SCHEMA = {
    "key": pl.String,
    "event": pl.Datetime("us", "UTC"),
    "created": pl.Datetime("us", "UTC"),
    "value": pl.Float32,
    "name": pl.String,
}


def moment(step: int | None) -> datetime | None:
    return None if step is None else START + timedelta(minutes=step)


def rows_of(records: list[tuple[str | None, int | None, int | None]], first: int = 0) -> pl.DataFrame:
    rows = [(key, moment(event), moment(created)) for key, event, created in records]
    numbered = [(*row, float(first + at), f"row {first + at}") for at, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema=SCHEMA, orient="row")


def entities_of(records: list[tuple[str | None, int | None]]) -> pl.DataFrame:
    rows = [(key, moment(time)) for key, time in records]
    return pl.DataFrame(rows, schema={"key": pl.String, TIME: pl.Datetime("us", "UTC")}, orient="row")


def join_of(folder: Path, ttl: int = 0, *, folder_key: str | None = None, created: str | None = "created") -> Join:
    source = Source(folder, "event", {}, folder_key=folder_key)
    return Join(source, ("key",), "event", created, timedelta(minutes=ttl), ("value", "name"))


def run(join: Join, entities: pl.DataFrame, workers: int = 1) -> pl.DataFrame:
    return pl.DataFrame(dict(join_blocks(join, entities, Local(workers))))


steps = st.integers(-1, 8).map(lambda step: None if step < 0 else step)
# One file: its rows, in a folder of its own or not.
files = st.tuples(
    st.sampled_from(["", "x", "y"]), st.lists(st.tuples(st.sampled_from("AABC"), steps, steps), max_size=6)
)


def write(folder: Path, files: list[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """Write the files and return all rows in the order in which they are read."""
    shutil.rmtree(folder, ignore_errors=True)
    for number, (inside, rows) in enumerate(files):
        path = folder / inside / f"{number:02d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path, row_group_size=2)
    return pl.concat(rows for _, rows in sorted(files, key=lambda file: file[0]))


def test_rows_anywhere_in_any_files_join_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(files, min_size=1, max_size=5),
        st.lists(st.tuples(st.sampled_from(["A", "B", "D", None]), steps), max_size=10),
        st.sampled_from([0, 2]),
        st.booleans(),
        st.integers(1, 4),
    )
    def check(written, asked, ttl, use_created, at_once) -> None:
        monkeypatch.setattr(asof_blocks, "ROWS_AT_ONCE", at_once)
        rows = write(tmp_path / "rows", [(inside, rows_of(part, 10 * at)) for at, (inside, part) in enumerate(written)])
        entities, created = entities_of(asked), "created" if use_created else None
        expected = asof_join(
            entities, rows, keys=["key"], time=TIME, event="event", created=created, ttl=timedelta(minutes=ttl)
        )
        got = run(join_of(tmp_path / "rows", ttl, created=created), entities)
        assert got.equals(expected.select("value", "name"))

    check()


def test_a_folder_a_key_joins_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key by itself, also several at once; keys without a folder, and null ones, have no features."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.sampled_from("ABC"), st.lists(st.tuples(steps, steps), max_size=6)), min_size=1, max_size=6
        ),
        st.lists(st.tuples(st.sampled_from(["A", "B", "D", "", "..", None]), steps), max_size=10),
        st.integers(1, 4),
        st.sampled_from([1, 2]),
    )
    def check(written, asked, at_once, workers) -> None:
        monkeypatch.setattr(asof_blocks, "ROWS_AT_ONCE", at_once)
        parts = [(key, rows_of([(key, *times) for times in part], 10 * at)) for at, (key, part) in enumerate(written)]
        rows, entities = write(tmp_path / "rows", parts), entities_of(asked)
        expected = asof_join(
            entities, rows, keys=["key"], time=TIME, event="event", created="created", ttl=timedelta(minutes=3)
        )
        got = run(join_of(tmp_path / "rows", 3, folder_key="key"), entities, workers)
        assert got.equals(expected.select("value", "name"))

    check()


def test_no_more_features_are_read_at_once_than_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large file in slices, of small ones several; of what nobody asks for, nothing."""
    monkeypatch.setattr(asof_blocks, "ROWS_AT_ONCE", 10)
    lengths = {"A/0": 25, "A/1": 3, "A/2": 4, "A/3": 9, "B/0": 5, "C/0": 7}
    for name, length in lengths.items():
        day = 100 * int(name[-1])
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        rows_of([(name[0], day + step, day + step) for step in range(length)]).write_parquet(path)
    read = []
    collect = Source.collect

    def counting(source: Source, frame: pl.LazyFrame) -> pl.DataFrame:
        found = collect(source, frame)
        if "value" in found.columns and found.height:
            read.append(found.height)
        return found

    monkeypatch.setattr(Source, "collect", counting)
    entities = entities_of([("A", step) for step in (3, 24, 101, 203, 308)] + [("B", 2)])
    assert run(join_of(tmp_path, folder_key="key"), entities)["value"].to_list() == [3, 24, 1, 3, 8, 2]
    assert read == [10, 5, 7, 9, 5], "the slice from 10 to 20 of A/0 is not wanted, nor is C"


def test_blocks_of_other_columns_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, [("A", rows_of([("A", 1, 1)]))])
    (tmp_path / "B").mkdir()
    rows_of([("B", 1, 1)]).with_columns(value=pl.lit("text")).write_parquet(tmp_path / "B" / "0.parquet")
    entities = entities_of([("A", 2), ("B", 2)])
    with pytest.raises(StoreError, match="is not readable: ") as error:
        run(join_of(tmp_path, folder_key="key"), entities)
    assert "\n" not in str(error.value)


def test_flat_files_where_folders_are_declared_are_none(tmp_path: Path) -> None:
    write(tmp_path, [("", rows_of([("A", 1, 1)]))])
    with pytest.raises(StoreError, match="holds no parquet files"):
        run(join_of(tmp_path, folder_key="key"), entities_of([("A", 2)]))
