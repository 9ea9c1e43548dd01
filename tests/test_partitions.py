"""Which file a row is in, and which files may hold a moment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from tradeloop.partitions import files, parts, symbols, until


def closes(*times: str) -> np.ndarray:
    return np.array(times, dtype="datetime64[us]")


def test_a_year_a_part_for_daily_bars_and_a_month_below() -> None:
    times = closes("2023-12-31T21", "2024-01-01T21", "2024-02-01", "2024-02-29T23:59:59.999999", "2024-03-01")
    assert parts(times, timedelta(days=1)) == [("2023", 0, 1), ("2024", 1, 5)]
    assert parts(times, timedelta(weeks=1)) == [("2023", 0, 1), ("2024", 1, 5)]
    assert parts(times, timedelta(hours=23)) == [
        ("2023-12", 0, 1),
        ("2024-01", 1, 2),
        ("2024-02", 2, 4),
        ("2024-03", 4, 5),
    ]
    assert parts(times[:0], timedelta(days=1)) == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 3 * 366 * 24), unique=True, max_size=60), st.sampled_from([1, 24]), st.data())
def test_every_row_is_in_one_part_which_may_hold_its_moment(
    hours: list[int], interval: int, data: st.DataObject
) -> None:
    times = closes("1969-06-01")[0] + np.sort(np.array(hours, dtype="timedelta64[h]"))
    found = parts(times, timedelta(hours=interval))
    assert [row for part in found for row in range(part.start, part.stop)] == list(range(len(times)))
    paths = [Path(f"{part.name}.parquet") for part in found]
    assert paths == sorted(paths), "in order of name is in order of time"
    if hours:
        row = data.draw(st.integers(0, len(times) - 1))
        wanted = next(number for number, part in enumerate(found) if part.start <= row < part.stop)
        assert until(paths, times[row]) == paths[: wanted + 1]


def test_files_and_symbols(tmp_path: Path) -> None:
    for name in ("B/2021.parquet", "B/2020.parquet", "A.x/2020.parquet", "A.x/manifest.json", "C/manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "B" / ".2022.parquet.tmp").touch()
    assert symbols(tmp_path) == ["A.x", "B"]
    assert [path.name for path in files(tmp_path, "B")] == ["2020.parquet", "2021.parquet"]
    assert files(tmp_path, "nobody") == []
