"""What the check stage says of days and bars, as small as a test needs it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tradeloop.atomic import write_parquet
from tradeloop.layout import Layout


def write_admission(
    layout: Layout,
    *,
    held: Sequence[tuple[str, str, str]] = (),
    marks: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write ``days.parquet`` with one day that is admitted and those of `held`, and ``marks.parquet``.

    Parameters
    ----------
    held
        Symbol, start and end of each day that is not admitted, in order of time.
    marks
        Symbol, time and rule.
    """
    rows = [("ANY", "2020-01-01T00:00", "2020-01-02T00:00"), *held]
    days = pd.DataFrame(rows, columns=["symbol", "start", "end"])
    for name in ("start", "end"):
        days[name] = pd.to_datetime(days[name], utc=True, format="ISO8601").dt.as_unit("us")
    write_parquet(layout.clean / "days.parquet", days.assign(admitted=[True] + [False] * len(held)))
    frame = pd.DataFrame(list(marks), columns=["symbol", "time", "rule"])
    frame["time"] = pd.to_datetime(frame["time"], utc=True, format="ISO8601").dt.as_unit("us")
    write_parquet(layout.clean / "marks.parquet", frame)
