"""The score of each day of trading, and the days that nothing is learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Times, from_times
from tradeloop.calendars import sessions
from tradeloop.integrity.report import Report, score

MARGIN = np.timedelta64(15, "D")  # longer than any market was shut between two sessions of its record but wars


def day_table(reports: Sequence[Report], min_score: float) -> pd.DataFrame:
    """Return the scores of all days of all series, in the order of the reports.

    A day is a session of the calendar: it holds the bars that close after the session before, up to its own close. The
    score is the series' formula over the day's bars; a day without any has 0.

    Returns
    -------
    DataFrame
        ``symbol``; ``day``, the session's date; ``start`` and ``end``: its bars close after the one, up to the other;
        ``bars`` that there are and ``missing`` ones; ``score``; ``admitted``, whether that is at least `min_score`.
    """
    tables = [_days(report) for report in reports]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(admitted=table["score"] >= min_score)


def _days(report: Report) -> pd.DataFrame:
    series = report.series
    labels, starts, ends = _sessions(series.calendar, series.times)

    def count(times: Times) -> NDArray[np.intp]:
        # Beyond the calendar's record all is one last day.
        at = np.minimum(np.searchsorted(ends, times), len(ends) - 1)
        return np.bincount(at, minlength=len(ends))

    rows = count(series.times)
    broken = {rule: count(hits.each) for rule, hits in report.hits.items()}
    missing = broken.get("gap", np.zeros_like(rows))
    real = np.flatnonzero(rows + missing)
    scores = score({rule: found[real] for rule, found in broken.items()}, (rows + missing)[real])
    return pd.DataFrame(
        {
            "symbol": report.symbol,
            "day": labels[real],
            "start": from_times(starts[real]),
            "end": from_times(ends[real]),
            "bars": rows[real],
            "missing": missing[real],
            "score": np.where(rows[real] > 0, scores, 0.0),
        }
    )


def _sessions(calendar: str, times: Times) -> tuple[Times, Times, Times]:
    """Return labels, starts (the closes before) and closes of the sessions around some times."""
    table = sessions(calendar, times.min() - MARGIN, times.max() + MARGIN)
    closes = table["close"].to_numpy(dtype="datetime64[us]")
    before = np.append(table["open"].to_numpy(dtype="datetime64[us]")[:1], closes[:-1])
    return table.index.to_numpy(dtype="datetime64[us]"), before, closes


def quarantined(days: pd.DataFrame) -> pd.DataFrame:
    """Return the days that are not admitted, the worst first."""
    return days[~days["admitted"]].sort_values(["score", "day"], kind="stable", ignore_index=True)
