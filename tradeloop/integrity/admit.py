"""Which series may be learnt from, and why one may not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tradeloop.config import Check
from tradeloop.errors import DataError
from tradeloop.integrity.report import Report
from tradeloop.integrity.series import stamp


def admit(report: Report, config: Check, *, file: str) -> pd.DataFrame:
    """Return the cleaned bars of a series that is fit to learn from.

    Raises
    ------
    DataError
        Naming file, symbol, time and rule of the first breach that cleaning may not mend, and how many there are; or
        saying that the score or the number of bars is too low.
    """
    if report.blocking:
        rule = report.blocking[0]
        hits = report.hits[rule]
        first = int(np.flatnonzero(report.kept[hits.rows])[0])
        others = f"; also {', '.join(report.blocking[1:])}" if report.blocking[1:] else ""
        raise DataError(
            f"{file}: {report.symbol} at {stamp(hits.times[first])} breaks {rule}: {hits.text(first)}; "
            f"{int(report.kept[hits.rows].sum())} such bars{others}"
        )
    bars = int(report.kept.sum())
    if bars < config.min_bars:
        raise DataError(
            f"{file}: {report.symbol} has {bars} bars, at least check.min_bars = {config.min_bars} are needed"
        )
    if report.score < config.min_score:
        why = ", ".join(f"{rule} {report.count(rule)}" for rule in report.hits)
        rule = f"at least check.min_score = {config.min_score:g} is needed"
        raise DataError(f"{file}: {report.symbol} scores {report.score:.1f}, {rule} (bars by rule: {why})")
    return report.clean()


def check_context(frame: pd.DataFrame, *, file: str) -> pd.DataFrame:
    """Return a context frame as it is, if its values are finite, and none is known before its time or out of order.

    Raises
    ------
    DataError
        Naming file, time and rule of the first row that is not so.
    """
    rules = {
        "close must be finite": ~np.isfinite(frame["close"]),
        "known_at must not be before the time itself": frame["known_at"] < frame["timestamp"],
        "times must not decrease": frame["timestamp"].diff() < pd.Timedelta(0),
        "known_at must not decrease": frame["known_at"].diff() < pd.Timedelta(0),
    }
    for rule, broken in rules.items():
        if broken.any():
            raise DataError(f"{file} at {frame['timestamp'][broken].iloc[0]}: {rule}; {int(broken.sum())} such rows")
    return frame
