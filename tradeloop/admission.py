"""Which labelled rows may be learnt from, by what the check stage said of their days and bars."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Times, to_times
from tradeloop.errors import DataError
from tradeloop.layout import Layout

Mask = NDArray[np.bool_]


def held_back(layout: Layout, rows: pd.DataFrame, *, exclude_marked: Collection[str]) -> dict[str, Mask]:
    """Return which rows are not to be learnt from, by reason.

    A row lives from the bar whose features it has to the one that ends its label; nothing in between may be held back.

    Parameters
    ----------
    rows
        ``symbol``, ``timestamp`` and ``label_end`` (NaT: not ended, which only the bar itself can hold back).
    exclude_marked
        Rules whose marks count.

    Returns
    -------
    dict
        ``quarantined``: touches a day that was not admitted; ``marked``: touches a bar marked by one of these rules.

    Raises
    ------
    DataError
        The check stage has not run.
    """
    days = _read(layout, "days")
    marks = _read(layout, "marks")
    days = days[~days["admitted"]]
    marks = marks[marks["rule"].isin(list(exclude_marked))]
    result = {reason: np.zeros(len(rows), dtype=bool) for reason in ("quarantined", "marked")}
    for symbol, at in rows.groupby("symbol", sort=False).indices.items():
        begin = to_times(rows["timestamp"].iloc[at])
        end = to_times(rows["label_end"].iloc[at])
        end = np.where(np.isnat(end), begin, end)
        bad = days[days["symbol"] == symbol]
        result["quarantined"][at] = _touches(begin, end, to_times(bad["start"]), to_times(bad["end"]))
        odd = np.sort(to_times(marks.loc[marks["symbol"] == symbol, "time"]))
        result["marked"][at] = _touches(begin, end, odd - np.timedelta64(1, "us"), odd)
    return result


def _touches(begin: Times, end: Times, opens: Times, closes: Times) -> Mask:
    """Tell which of the spans [begin, end] share a moment with one of the spans (opens, closes], which increase."""
    first = np.searchsorted(closes, begin)
    found = first < len(closes)
    result = np.zeros(len(begin), dtype=bool)
    result[found] = opens[first[found]] < end[found]
    return result


def _read(layout: Layout, name: str) -> pd.DataFrame:
    path = layout.clean / f"{name}.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing: run `python -m stages.check` first")
    frame: Any = pd.read_parquet(path)
    return pd.DataFrame(frame)
