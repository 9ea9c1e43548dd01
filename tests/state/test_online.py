"""The online store: one behaviour over SQLite and Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tradeloop.config import Params
from tradeloop.errors import SchemaMismatch, StoreError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.online import OnlineRows, OnlineStore

NAN = float("nan")
REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def rows(*records: tuple[str, list[float]]) -> OnlineRows:
    """Return rows from (time, values)."""
    times, values = zip(*records, strict=True)
    return OnlineRows.of(np.array(values, dtype=np.float32), np.array(times, dtype="datetime64[us]"))


@pytest.fixture
def store(layout: Layout, online_params: Params) -> Iterator[OnlineStore]:
    opened = OnlineStore(layout, online_params)
    yield opened
    opened.close()


def test_reads_what_was_written_in_the_order_asked(store: OnlineStore, schema: Schema) -> None:
    written = rows(("2020-01-01T21:00:00.123456", [1, 2, 3]), ("2020-01-02T21:00:00", [0.1, NAN, -1e30]))
    assert store.write(["A", "B.C-D_1"], written, schema) == 2
    got = store.read(["B.C-D_1", "nobody", "A", "A"], schema)
    np.testing.assert_array_equal(got.vectors, written.vectors[[1, 0, 0, 0]] * [[1], [NAN], [1], [1]])
    assert got.vectors.dtype == np.float32
    assert got.found.tolist() == [True, False, True, True]
    assert np.isnat(got.feature_time[1])
    assert got.feature_time[[0, 2]].tolist() == written.feature_time[[1, 0]].tolist(), "exact to the microsecond"


def test_float32_travels_bit_for_bit(store: OnlineStore, schema: Schema) -> None:
    values = np.array([[np.float32(1) / np.float32(3), np.finfo(np.float32).tiny / 4, np.inf]], dtype=np.float32)
    store.write(["A"], OnlineRows.of(values, np.array(["2020-01-01"], dtype="datetime64[us]")), schema)
    assert store.read(["A"], schema).vectors.tobytes() == values.tobytes()


def test_older_never_replaces_newer_and_a_correction_of_the_same_time_does(store: OnlineStore, schema: Schema) -> None:
    newer, older = ("2020-01-02T00:00:00.000002", [2, 2, 2]), ("2020-01-02T00:00:00.000001", [1, 1, 1])
    assert store.write(["A"], rows(newer), schema) == 1
    assert store.write(["A"], rows(older), schema) == 0
    assert store.read(["A"], schema).vectors[0, 0] == 2
    assert store.write(["A"], rows((newer[0], [3, 3, 3])), schema) == 1
    assert store.read(["A"], schema).vectors[0, 0] == 3


def test_within_one_write_the_newest_wins_and_of_equals_the_last(store: OnlineStore, schema: Schema) -> None:
    batch = rows(
        ("2020-01-01", [1, 1, 1]), ("2020-01-03", [2, 2, 2]), ("2020-01-03", [3, 3, 3]), ("2020-01-02", [4, 4, 4])
    )
    assert store.write(["A"] * 4, batch, schema) == 1
    assert store.read(["A"], schema).vectors[0, 0] == 3


def test_a_newer_row_that_is_all_nan_hides_the_older(store: OnlineStore, schema: Schema) -> None:
    """Where there is nothing to predict from, an old row must not stand in for it."""
    store.write(["A"], rows(("2020-01-01", [1, 2, 3])), schema)
    blank = OnlineRows.empty(1, 3)
    blank.feature_time[0] = np.datetime64("2020-01-02", "us")
    assert store.write(["A"], blank, schema) == 1
    got = store.read(["A"], schema)
    assert not got.found[0]
    assert np.isnat(got.feature_time[0])
    assert store.write(["A"], rows(("2020-01-01", [1, 2, 3])), schema) == 0, "its time still guards"


def test_rows_without_a_time_are_left_out(store: OnlineStore, schema: Schema) -> None:
    assert store.write(["A", "B"], OnlineRows.empty(2, 3), schema) == 0
    assert store.read(["A", "B"], schema).found.tolist() == [False, False]
    assert len(store.read([], schema)) == 0


def test_another_schema_sees_none_of_it(store: OnlineStore, schema: Schema) -> None:
    store.write(["A"], rows(("2020-01-01", [1, 2, 3])), schema)
    other = Schema(schema.market, schema.names, schema.hash[::-1])
    assert not store.read(["A"], other).found[0]
    assert store.read(["A"], schema).found[0]


def test_refuses_rows_of_another_length(store: OnlineStore, schema: Schema) -> None:
    with pytest.raises(StoreError, match=r"1 rows of 3 features are needed, got \(1, 2\)"):
        store.write(["A"], rows(("2020-01-01", [1, 2])), schema)


def test_many_symbols_in_one_call(store: OnlineStore, schema: Schema) -> None:
    symbols = [f"S{number}" for number in range(10_000)]
    values = np.arange(30_000, dtype=np.float32).reshape(-1, 3)
    times = np.full(10_000, np.datetime64("2020-01-01", "us"))
    assert store.write(symbols, OnlineRows.of(values, times), schema) == 10_000
    np.testing.assert_array_equal(store.read(symbols[::-1], schema).vectors, values[::-1])


def test_feasts_own_read_agrees(
    store: OnlineStore, schema: Schema, layout: Layout, online_params: Params, write_features: Callable
) -> None:
    from tradeloop.state.feast_repo import open_store

    write_features("A", ["2020-01-01", "2020-01-02"])
    store.fill(schema)
    answer = open_store(layout, online_params, schema).get_online_features(
        [f"{schema.vector_view}:vector", f"{schema.vector_view}:feature_time"], [{"symbol": "A"}]
    )
    assert answer.to_dict() == {"symbol": ["A"], "vector": [[1.0, 1.5, -1.0]], "feature_time": [1577923200000000]}


def test_materialize_writes_what_we_read(
    store: OnlineStore, schema: Schema, layout: Layout, online_params: Params, write_features: Callable
) -> None:
    from tradeloop.state.feast_repo import open_store

    write_features("A", ["2020-01-01", "2020-01-02", "2020-01-03"])
    feast = open_store(layout, online_params, schema)
    feast.materialize(datetime(2020, 1, 1), datetime(2020, 1, 2), feature_views=[schema.vector_view])
    got = store.read(["A"], schema)
    assert got.vectors.tolist() == [[1.0, 1.5, -1.0]]
    assert got.feature_time[0] == np.datetime64("2020-01-02", "us")


def test_fill_repairs_an_empty_and_a_half_filled_store(
    store: OnlineStore, schema: Schema, write_features: Callable
) -> None:
    for symbol in ("A", "B", "C"):
        write_features(symbol, ["2020-01-01", "2020-01-02"])
    assert store.missing(schema) == ["A", "B", "C"]
    store.write(["B", "C"], rows(("2020-01-02", [9, 9, 9]), ("2020-01-01", [9, 9, 9])), schema)
    assert store.missing(schema) == ["A", "C"], "C is behind"
    assert store.fill(schema) == 3
    assert store.missing(schema) == []
    assert store.read(["A", "B", "C"], schema).vectors.tolist() == [[1.0, 1.5, -1.0]] * 3


def test_fill_leaves_rows_that_are_ahead_of_the_files(
    store: OnlineStore, schema: Schema, write_features: Callable
) -> None:
    write_features("A", ["2020-01-01"])
    store.write(["A"], rows(("2020-06-01", [9, 9, 9])), schema)
    assert store.missing(schema) == []
    assert store.fill(schema) == 0
    assert store.read(["A"], schema).vectors[0, 0] == 9


def test_fill_takes_the_newest_bar_in_its_last_version(
    store: OnlineStore, schema: Schema, write_features: Callable
) -> None:
    times = ["2020-01-02", "2020-01-01", "2020-01-02", "2020-01-01"]
    write_features("A", times, created=["2020-01-02", "2020-01-01", "2020-01-05", "2020-01-09"])
    store.fill(schema)
    assert store.read(["A"], schema).vectors[0, 0] == 2


def test_files_of_another_schema_are_refused(store: OnlineStore, schema: Schema, write_features: Callable) -> None:
    write_features("A", ["2020-01-01"])
    other = Schema(schema.market, schema.names, "f" * 64)
    for call in (lambda: store.fill(other), lambda: store.history(["A"], other, datetime(2020, 1, 1, tzinfo=UTC))):
        with pytest.raises(SchemaMismatch, match=f"has feature schema {schema.hash[:12]}, expected ffffffffffff"):
            call()
    assert store.missing(other) == ["AAPL", "IBM", "MSFT", "GOOG"], "no file helps: the market's own symbols"


def test_without_files(store: OnlineStore, schema: Schema, params: Params) -> None:
    assert store.missing(schema) == list(params.active.symbols)
    with pytest.raises(StoreError, match="holds no features"):
        store.fill(schema)


def test_threads_share_one_instance(store: OnlineStore, schema: Schema) -> None:
    """A row's three values always come from one write."""
    store.write(["A"], rows(("2020-01-01", [0, 0, 0])), schema)
    torn: list[list[float]] = []
    stop = threading.Event()

    def reading() -> None:
        while not stop.is_set():
            values = store.read(["A"], schema).vectors[0].tolist()
            if len(set(values)) != 1:
                torn.append(values)

    readers = [threading.Thread(target=reading) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(1, 60):
        time_ = np.datetime64("2020-01-01", "us") + np.timedelta64(step, "s")
        store.write(["A"], OnlineRows.of(np.full((1, 3), step, dtype=np.float32), time_.reshape(1)), schema)
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []
    assert store.read(["A"], schema).vectors[0, 0] == 59


def test_no_row_is_written_between_another_writers_look_and_its_write(
    store: OnlineStore, schema: Schema, layout: Layout, online_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of an old row looks, and dawdles; the newer row must wait for it, or be seen by it."""
    slow, looked = OnlineStore(layout, online_params), threading.Event()
    look = slow._stored

    def look_and_dawdle(*arguments: Any) -> Any:
        seen = look(*arguments)
        looked.set()
        time.sleep(0.5)
        return seen

    monkeypatch.setattr(slow, "_stored", look_and_dawdle)
    older = threading.Thread(target=slow.write, args=(["A"], rows(("2020-01-01", [1, 1, 1])), schema))
    older.start()
    assert looked.wait(10)
    store.write(["A"], rows(("2020-01-02", [2, 2, 2])), schema)
    older.join()
    assert store.read(["A"], schema).vectors[0, 0] == 2


WRITER = """
import sys
import numpy as np
from pathlib import Path
from typing import Any
from tradeloop.config import Params
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.online import OnlineRows, OnlineStore

root, params, hash_, first = sys.argv[1:]
store = OnlineStore(Layout(Path(root)), Params.model_validate_json(params))
schema = Schema("us_daily", ("alpha", "beta", "gamma"), hash_)
for step in range(int(first), 0, -2):  # newest first, so that each later write must be refused
    time = np.datetime64("2020-01-01", "us") + np.timedelta64(step, "s")
    store.write(["A", "B"], OnlineRows.of(np.full((2, 3), step, "f4"), time.repeat(2)), schema)
"""


@pytest.mark.slow
def test_processes_writing_at_once_leave_the_newest(
    store: OnlineStore, schema: Schema, layout: Layout, online_params: Params
) -> None:
    """Both also apply the views, to a registry that is not there yet."""
    arguments = [str(layout.root), online_params.model_dump_json(), schema.hash]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, *arguments, first], env=ENVIRONMENT, stderr=subprocess.PIPE)
        for first in ("120", "119")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors.decode()
    assert store.read(["A", "B"], schema).vectors.tolist() == [[120.0] * 3] * 2


def test_a_deleted_sqlite_file_is_noticed_and_made_again(
    layout: Layout, params: Params, schema: Schema, write_features: Callable
) -> None:
    write_features("A", ["2020-01-01"])
    store = OnlineStore(layout, params)
    store.fill(schema)
    file = layout.live / "feast" / "online.db"
    for gone in ([file], [file, layout.live / "feast" / "registry.db"]):
        for path in gone:
            path.unlink()
        assert not store.read(["A"], schema).found[0]
        assert store.missing(schema) == ["A"]
        assert store.fill(schema) == 1
        assert store.read(["A"], schema).found[0]
        assert OnlineStore(layout, params).read(["A"], schema).found[0], "the new file holds it, not the old handle"


def test_a_replaced_sqlite_file_is_noticed(layout: Layout, params: Params, schema: Schema) -> None:
    store = OnlineStore(layout, params)
    store.write(["A"], rows(("2020-01-01", [1, 1, 1])), schema)
    file = layout.live / "feast" / "online.db"
    copy = file.with_suffix(".copy")
    copy.write_bytes(file.read_bytes())
    store.write(["A"], rows(("2020-01-02", [2, 2, 2])), schema)
    copy.replace(file)
    assert store.read(["A"], schema).vectors[0, 0] == 1


def test_a_file_that_is_no_database_is_one_line(layout: Layout, params: Params, schema: Schema) -> None:
    file = layout.live / "feast" / "online.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match=r"online\.db does not answer") as error:
        OnlineStore(layout, params).read(["A"], schema)
    assert "\n" not in str(error.value)


def test_a_redis_that_is_not_there_is_one_line(layout: Layout, params: Params, schema: Schema) -> None:
    serving = params.serving.model_copy(update={"online_store": "redis", "redis_url": "127.0.0.1:1"})
    store = OnlineStore(layout, params.model_copy(update={"serving": serving}))
    with pytest.raises(StoreError, match=r"the online store at 127\.0\.0\.1:1 does not answer") as error:
        store.read(["A"], schema)
    assert "\n" not in str(error.value)
    began = time.perf_counter()
    with pytest.raises(StoreError):
        store.read(["A"], schema)
    assert time.perf_counter() - began < 1, "a request must not wait through retries"


@pytest.mark.services
@pytest.mark.parametrize("online_params", ["redis"], indirect=True)
def test_redis_forgets_in_the_end(store: OnlineStore, schema: Schema, online_params: Params) -> None:
    import redis

    from tradeloop.state.feast_repo import REDIS_TTL_SECONDS

    store.write(["A"], rows(("2020-01-01", [1, 1, 1])), schema)
    database = int(online_params.serving.redis_url.rpartition("=")[2])
    with redis.Redis(port=16379, db=database) as client:
        left = [client.ttl(key) for key in client.scan_iter(b"*")]
    assert left and all(REDIS_TTL_SECONDS - 60 < seconds <= REDIS_TTL_SECONDS for seconds in left)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process cannot be set here")
def test_the_event_time_does_not_depend_on_the_processs_time_zone(
    layout: Layout, params: Params, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """02:30 UTC on this day is no time at all in New York, where Feast's own SQLite column would move it by an hour."""
    written = rows(("2020-03-08T02:30:00", [1, 1, 1]))
    try:
        for zone in ("America/New_York", "Asia/Tokyo", "UTC"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            OnlineStore(layout, params).write(["A"], written, schema)
            assert (
                OnlineStore(layout, params).read(["A"], schema).feature_time.tolist() == written.feature_time.tolist()
            )
    finally:
        monkeypatch.undo()
        time.tzset()


SERVER = """
import sys
import numpy as np
from pathlib import Path
from typing import Any
from tradeloop.config import load_params
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.online import OnlineRows, OnlineStore

assert "feast" not in sys.modules
store = OnlineStore(Layout(Path(sys.argv[1])), load_params(Path(sys.argv[2])))
schema = Schema("m", ("a",), "e" * 64)
rows = OnlineRows.of(np.ones((1, 1), "f4"), np.array(["2020-01-01"], "M8[us]"))
assert store.write(["A"], rows, schema) == 1 and store.read(["A"], schema).found[0]
heavy = ("torch", "polars", "dask", "duckdb", "talib", "sklearn", "xgboost", "tradeloop.features")
print([name for name in heavy if name in sys.modules])
"""


def test_reading_needs_neither_polars_nor_the_features(layout: Layout) -> None:
    """Serving runs without them; Feast itself is imported only when a store is opened."""
    result = subprocess.run(
        [sys.executable, "-c", SERVER, str(layout.root), str(REPOSITORY / "params.yaml")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


class TestHistory:
    @pytest.fixture
    def store(self, layout: Layout, params: Params) -> OnlineStore:
        return OnlineStore(layout, params)

    def test_the_row_in_force_at_a_moment(self, store, schema, write_features) -> None:
        write_features("A", ["2020-01-01T21:00", "2020-01-02T21:00"])
        write_features("B", ["2020-01-02T21:00"], offset=5)
        for moment, expected in (
            (datetime(2020, 1, 1, 20, 59, tzinfo=UTC), [NAN, NAN]),
            (datetime(2020, 1, 1, 21, tzinfo=UTC), [0, NAN]),
            (datetime(2020, 1, 2, 20, 59, 59, 999999), [0, NAN]),
            (datetime(2020, 1, 2, 16, tzinfo=timezone(timedelta(hours=-5))), [1, 5]),
            (datetime(2030, 1, 1, tzinfo=UTC), [1, 5]),
        ):
            got = store.history(["A", "B"], schema, moment)
            np.testing.assert_array_equal(got.vectors[:, 0], np.array(expected, dtype=np.float32))
            assert got.found.tolist() == [value == value for value in expected]

    def test_a_restated_row_counts_from_its_writing(self, store, schema, write_features) -> None:
        write_features("A", ["2020-01-01", "2020-01-01"], created=["2020-01-01", "2020-01-05"])
        assert store.history(["A"], schema, datetime(2020, 1, 4)).vectors[0, 0] == 0
        assert store.history(["A"], schema, datetime(2020, 1, 5)).vectors[0, 0] == 1

    def test_unknown_symbols_and_paths_are_not_found(self, store, schema, write_features, layout) -> None:
        write_features("A", ["2020-01-01"])
        shutil.copytree(layout.features / "A", layout.data / "B")
        got = store.history(["../B", "nobody", "", "A"], schema, datetime(2021, 1, 1))
        assert got.found.tolist() == [False, False, False, True]

    def test_a_changed_file_is_read_again(self, store, schema, write_features) -> None:
        write_features("A", ["2020-01-01"])
        assert store.history(["A"], schema, datetime(2021, 1, 1)).vectors[0, 0] == 0
        write_features("A", ["2020-01-01"], offset=7)
        assert store.history(["A"], schema, datetime(2021, 1, 1)).vectors[0, 0] == 7

    def test_a_new_file_and_a_new_schema_are_noticed(self, store, schema, write_features, layout) -> None:
        write_features("A", ["2020-01-01"])
        assert store.history(["B"], schema, datetime(2021, 1, 1)).found.tolist() == [False]
        write_features("B", ["2020-01-01"])
        assert store.history(["B"], schema, datetime(2021, 1, 1)).found.tolist() == [True]
        Schema(schema.market, schema.names, "0" * 64).save(layout.store / "schema.json")
        with pytest.raises(SchemaMismatch):
            store.history(["B"], schema, datetime(2021, 1, 1))

    def test_a_broken_file_is_one_line(self, store, schema, write_features, layout) -> None:
        write_features("A", ["2020-01-01"])
        (layout.features / "A" / "2020.parquet").write_bytes(b"PAR1")
        with pytest.raises(StoreError, match=r"2020\.parquet is not a feature file"):
            store.history(["A"], schema, datetime(2021, 1, 1))

    def test_equals_feasts_point_in_time_join(self, store, schema, write_features, layout, params) -> None:
        """The clock of a replay sees what training saw."""
        from tradeloop.state.feast_repo import open_store

        rng = np.random.default_rng(3)
        day = pd.Timestamp("2020-01-01", tz="UTC")
        events = day + pd.to_timedelta(rng.integers(0, 60, 80), unit="h")
        created = events + pd.to_timedelta(rng.integers(0, 20, 80), unit="h")
        write_features("A", [str(time) for time in events], created=[str(time) for time in created])
        moments = [day + pd.Timedelta(hours=hour) for hour in range(-1, 90)]
        entities = pd.DataFrame({"symbol": "A", "event_timestamp": moments})
        # a long TTL: the history has none
        joined = open_store(layout, params, schema).get_historical_features(
            entities, [f"{schema.scalar_view}:alpha", f"{schema.scalar_view}:feature_time"]
        )
        frame = joined.to_df()
        for moment, alpha, feature_time in zip(moments, frame["alpha"], frame["feature_time"], strict=True):
            got = store.history(["A"], schema, moment.to_pydatetime())
            np.testing.assert_array_equal(got.vectors[0, 0], alpha)
            if got.found[0]:
                assert got.feature_time[0].astype(np.int64) == feature_time
