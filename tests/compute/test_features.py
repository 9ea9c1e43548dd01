"""Parts are computed where their bars have changed, nowhere else; whatever came before, the files are the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from tests.compute.conftest import contents
from tests.feature_files import read_rows
from tradeloop.bars import Bars
from tradeloop.compute import rows
from tradeloop.compute.features import remove_others, write_parts
from tradeloop.compute.manifest import Manifest, recipe, source_digest
from tradeloop.features import compute, schema_lookback
from tradeloop.partitions import parts
from tradeloop.schema import Schema

MONTHS = ["2017-01", "2017-02", "2017-03", "2017-04", "2017-05"]


@pytest.fixture
def whole(tmp_path: Path, bars: Bars, schema: Schema) -> dict[str, bytes]:
    """What a computation from nothing writes."""
    kept = write_parts(tmp_path / "whole", bars, schema)
    assert list(kept.computed) == MONTHS and kept.parts == 5
    return contents(tmp_path / "whole")


def begin(month: str, bars: Bars) -> int:
    return int(np.searchsorted(bars.timestamp, np.datetime64(month)))


def test_the_rows_are_those_of_the_whole_history(tmp_path: Path, bars: Bars, schema: Schema, whole: object) -> None:
    frame = read_rows(tmp_path, "whole")
    assert list(frame.columns) == ["symbol", "timestamp", "created", *schema.names]
    assert (frame["symbol"] == "EURUSD").all() and frame["created"].equals(frame["timestamp"])
    np.testing.assert_array_equal(frame["timestamp"].dt.tz_localize(None).to_numpy(), bars.timestamp)
    values = frame[list(schema.names)]
    assert (values.dtypes == np.float32).all()
    np.testing.assert_array_equal(values.to_numpy(), compute(bars, schema))


def test_a_new_month_computes_that_month_alone(
    tmp_path: Path, bars: Bars, schema: Schema, whole: dict[str, bytes]
) -> None:
    """The history is not touched, and what comes of it is what a computation from nothing gives, byte for byte."""
    folder = tmp_path / "grown"
    old = begin("2017-05", bars)
    assert list(write_parts(folder, bars[:old], schema).computed) == MONTHS[:4]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    kept = write_parts(folder, bars, schema)
    assert kept.computed == ("2017-05",) and kept.parts == 5
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert contents(folder) == whole


def test_unchanged_bars_compute_nothing(tmp_path: Path, bars: Bars, schema: Schema, whole: dict[str, bytes]) -> None:
    assert write_parts(tmp_path / "whole", bars, schema).computed == ()
    assert contents(tmp_path / "whole") == whole


def test_a_restated_bar_computes_its_month_and_those_that_look_back_on_it(
    tmp_path: Path, bars: Bars, schema: Schema, whole: object
) -> None:
    lookback = schema_lookback(schema, ())
    assert lookback < begin("2017-05", bars) - begin("2017-04", bars), "a month is longer than what is looked back on"
    volume = bars.volume.copy()
    at = begin("2017-03", bars) + 5
    volume[at] += 1
    changed = replace(bars, volume=volume)
    assert write_parts(tmp_path / "whole", changed, schema).computed == ("2017-03",)
    volume[begin("2017-04", bars) - 1] += 1
    changed = replace(bars, volume=volume.copy())
    assert write_parts(tmp_path / "whole", changed, schema).computed == ("2017-03", "2017-04")
    write_parts(tmp_path / "again", changed, schema)
    assert contents(tmp_path / "whole") == contents(tmp_path / "again")


def test_an_input_that_became_known_later_counts(tmp_path: Path, bars: Bars, schema: Schema, whole: object) -> None:
    values = bars.inputs["events.until"].copy()
    values[-1] = np.nan
    changed = replace(bars, inputs={"events.until": values})
    assert write_parts(tmp_path / "whole", changed, schema).computed == ("2017-05",)


def test_another_recipe_computes_all(
    tmp_path: Path, bars: Bars, schema: Schema, whole: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradeloop.compute.manifest._versions", lambda: {"numpy": "0"})
    assert list(write_parts(tmp_path / "whole", bars, schema).computed) == MONTHS


def _truncate(folder: Path) -> None:
    path = folder / "2017-02.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def _edit(folder: Path) -> None:
    path = folder / "2017-02.parquet"
    frame = pd.read_parquet(path)
    frame.iloc[0, -1] += 1
    frame.to_parquet(path)


@pytest.mark.parametrize("harm", [lambda folder: (folder / "2017-02.parquet").unlink(), _truncate, _edit])
def test_a_file_that_is_not_as_written_is_computed_again(
    tmp_path: Path, bars: Bars, schema: Schema, whole: dict[str, bytes], harm: Callable[[Path], None]
) -> None:
    harm(tmp_path / "whole")
    assert write_parts(tmp_path / "whole", bars, schema).computed == ("2017-02",)
    assert contents(tmp_path / "whole") == whole


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"recipe": 1, "parts": {"2017-01": {}}}', '{"parts": []}'])
def test_a_manifest_that_says_nothing_vouches_for_nothing(
    tmp_path: Path, bars: Bars, schema: Schema, whole: dict[str, bytes], text: str
) -> None:
    (tmp_path / "whole" / "manifest.json").write_text(text)
    assert list(write_parts(tmp_path / "whole", bars, schema).computed) == MONTHS
    assert contents(tmp_path / "whole") == whole


@pytest.mark.parametrize("survivors", [1, 3, 5])
def test_a_run_that_dies_between_two_files_is_finished_by_the_next(
    tmp_path: Path, bars: Bars, schema: Schema, whole: object, survivors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of the new files were written over the old ones, nothing of the two is mixed up."""
    changed = replace(bars, close=bars.low.copy())
    write_parts(tmp_path / "changed", changed, schema)
    real, left = os.replace, [survivors]

    def dying(*paths: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(*paths)

    monkeypatch.setattr("os.replace", dying)
    with pytest.raises(KeyboardInterrupt):
        write_parts(tmp_path / "whole", changed, schema)
    monkeypatch.undo()
    (tmp_path / "whole" / ".2017-03.parquet.dead").touch()  # what a kill leaves of a file that was being written
    for wanted, name in ((changed, "changed"), (bars, "again"), (changed, "changed")):
        write_parts(tmp_path / "whole", wanted, schema)
        if not (tmp_path / name).exists():
            write_parts(tmp_path / name, wanted, schema)
        assert contents(tmp_path / "whole") == contents(tmp_path / name)


def test_a_shorter_history_leaves_no_older_part(tmp_path: Path, bars: Bars, schema: Schema, whole: object) -> None:
    write_parts(tmp_path / "whole", bars[begin("2017-02", bars) : begin("2017-04", bars)], schema)
    assert set(contents(tmp_path / "whole")) == {"2017-02.parquet", "2017-03.parquet", "manifest.json"}


def test_what_is_of_no_wanted_symbol_goes(tmp_path: Path) -> None:
    for name in ("A/2020.parquet", "B/2020.parquet", "C.parquet"):
        (tmp_path / "features" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "features" / name).touch()
    remove_others(tmp_path / "features", ["A", "Z"])
    assert set(contents(tmp_path / "features")) == {"A/2020.parquet"}
    remove_others(tmp_path / "nothing", ["A"])


def test_runs_of_any_length_give_the_same_files(tmp_path: Path, bars: Bars, schema: Schema, whole: object) -> None:
    """How parts are grouped to be computed, and which are, changes no byte of them."""
    lookback, every = schema_lookback(schema, ()), parts(bars.timestamp, pd.Timedelta(hours=1))
    files = {part.name: (tmp_path / "whole" / f"{part.name}.parquet").read_bytes() for part in every}

    @settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sets(st.integers(0, 4)), st.integers(1, 3000))
    def check(chosen: set[int], at_once: int) -> None:
        wanted = [every[number] for number in sorted(chosen)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows, "BARS_AT_ONCE", at_once)
            runs = list(rows._runs(wanted))
            found = {part.name: content for part, content in rows.part_rows(bars, wanted, schema, lookback=lookback)}
        assert [part for run in runs for part in run] == wanted
        assert all(len(run) == 1 or run[-1].stop - run[0].start <= at_once for run in runs)
        assert found == {part.name: files[part.name] for part in wanted}

    check()


def test_a_digest_is_of_all_that_bars_hold(bars: Bars) -> None:
    few = replace(bars[:50], context={"a": bars.close[:50], "b": bars.open[:50]})
    seen = {source_digest(few), source_digest(few[:49]), source_digest(replace(few, symbol="other"))}
    seen.add(source_digest(replace(few, context={"b": few.close, "a": few.open})))
    for name in ("open", "high", "low", "close", "volume"):
        values = getattr(few, name).copy()
        values[7] = np.nextafter(values[7], np.inf)
        seen.add(source_digest(replace(few, **{name: values})))
    times = few.timestamp.copy()
    times[7] += np.timedelta64(1, "us")
    seen.add(source_digest(replace(few, timestamp=times)))
    seen.add(source_digest(replace(few, inputs={"events.until": few.inputs["events.until"] + 1})))
    seen.add(source_digest(replace(few, inputs={"events.since": few.inputs["events.until"]})))
    assert len(seen) == 12
    assert source_digest(few) == source_digest(replace(few, close=few.close.copy()))


def test_a_recipe_is_of_the_schema_the_code_and_the_versions(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {recipe(schema), recipe(replace(schema, hash="0" * 64)), recipe(replace(schema, interval="4h"))}
    monkeypatch.setattr("tradeloop.compute.manifest._code", lambda: {})
    seen.add(recipe(schema))
    assert len(seen) == 4


def test_the_manifest_reads_what_it_wrote(tmp_path: Path, whole: object) -> None:
    found = Manifest.load(tmp_path / "whole")
    found.save(tmp_path / "copy")
    assert Manifest.load(tmp_path / "copy") == found
    assert list(json.loads((tmp_path / "copy" / "manifest.json").read_text())["parts"]) == MONTHS
