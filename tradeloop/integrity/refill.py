"""Asking the source again for what the calendar has and the series has not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, Times, to_times
from tradeloop.errors import DataError
from tradeloop.integrity.report import Report
from tradeloop.integrity.rules import restatements

Fetch = Callable[[str, np.datetime64, np.datetime64], pd.DataFrame]
"""Returns the bars that a symbol has now between two closes, both included; see `Source.refetch`."""


@dataclass(frozen=True)
class Refill:
    """What came of asking again for a series' gaps.

    Attributes
    ----------
    frame
        The raw bars with those that came, each in its place.
    asked, missing
        Gaps asked for, and the bars missing in them.
    came
        Bars that came for them.
    restated
        Bars beside the gaps that came back with other values; each stands behind its earlier copy.
    problem
        Why the source did not answer; the gaps after that one were not asked for.
    """

    frame: pd.DataFrame
    asked: int = 0
    missing: int = 0
    came: int = 0
    restated: int = 0
    problem: str | None = None


def refill(report: Report, fetch: Fetch, *, gaps: int) -> Refill:
    """Ask for the longest `gaps` gaps of a series again, each together with the bars on either side.

    Nothing is judged here: what comes is put in its place, for the rules to look at like the rest.
    """
    hits = report.hits.get("gap")
    if hits is None or report.blocking:
        return Refill(report.raw)
    parts, places = [report.raw], [np.arange(report.rows, dtype=np.float64)]
    asked = missing = restated = 0
    problem = None
    for hit in np.sort(np.argsort(-hits.bars, kind="stable")[:gaps]):
        after = int(hits.rows[hit])
        before = int(np.flatnonzero(report.kept[:after])[-1])
        edges = report.raw.iloc[[before, after]]
        try:
            found = fetch(report.symbol, *report.series.times[[before, after]])
        except DataError as error:
            problem = str(error)
            break
        asked, missing = asked + 1, missing + int(hits.bars[hit])
        changed = [time for time, _ in restatements(edges, found)]
        new, place = _placed(found, report.series.times[[before, after]], (before, after), changed)
        restated += len(changed)
        parts.append(new)
        places.append(place)
    frame = pd.concat([part[list(COLUMNS)] for part in parts if len(part)], ignore_index=True)
    frame = frame.iloc[np.argsort(np.concatenate(places), kind="stable")].reset_index(drop=True)
    return Refill(frame, asked, missing, len(frame) - report.rows - restated, restated, problem)


def _placed(
    found: pd.DataFrame, ends: Times, rows: tuple[int, int], changed: list[np.datetime64]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the bars within a gap, and those at its ends that changed, with the row that each belongs behind."""
    times = to_times(found["timestamp"])
    place = np.select([times == ends[0], times == ends[1]], [rows[0] + 0.25, rows[1] + 0.25], rows[1] - 0.5)
    inside = (times > ends[0]) & (times < ends[1])
    new = inside | np.isin(times, np.array(changed, dtype="datetime64[us]"))
    return found[new], place[new]
