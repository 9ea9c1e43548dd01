"""What the check stage found, as one HTML file for a person: gaps, scores by day, findings. Opens without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import Times
from tradeloop.integrity.examine import Examined
from tradeloop.integrity.report import RULES, Report
from tradeloop.pages import render_page

WIDTH = 900  # of a plot, in its own units
ROW = 16  # of the heat map
LABEL = 45  # what a date below it needs
BY_DAY = 130  # days up to which the heat map has a column a day, beyond it a column a month
SYMBOLS = 60  # that are drawn, the worst; the table has all
DAY = pd.Timedelta(days=1)
SHOWN = 25  # findings of one rule and symbol, and quarantined days of one symbol


def render(found: Examined, market: str) -> bytes:
    """Return the report as an HTML page; the same findings give the same bytes."""
    return render_page(
        "integrity.html.j2",
        market=market,
        rows=[_row(report) for report in found.reports],
        notes=list(found.notes()),
        heat=heat_map(found.days_of),
        strips=score_strips(found.days_of, found.min_score),
        tables=[table for report in found.reports for table in _findings(report)],
        days=_quarantined(found.days),
        held_back=int((~found.days["admitted"]).sum()),
        min_score=found.min_score,
        rules=RULES,
        width=WIDTH,
        shown=SHOWN,
    )


def _row(report: Report) -> dict[str, Any]:
    bars = report.rows + report.count("gap")
    return {
        **report.summary(),
        "symbol": report.symbol,
        "broken": [(rule, report.count(rule), 100 * report.count(rule) / bars) for rule in report.hits],
    }


def heat_map(days: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the geometry of the map of gaps: a row a symbol, a column a day or month, shaded by the share missing.

    Parameters
    ----------
    days
        By symbol; see `days.day_table`.
    """
    first, last = _ends(days)
    unit = "day" if (last - first).days < BY_DAY else "month"
    ends = np.array([first, last], dtype="datetime64[us]").astype("datetime64[D]" if unit == "day" else "datetime64[M]")
    columns: Times = np.arange(ends[0], ends[1] + 1)
    symbols = _worst({symbol: int(mine["missing"].sum()) for symbol, mine in days.items()})
    cell = WIDTH / len(columns)
    cells = []
    for row, symbol in enumerate(symbols):
        place = np.searchsorted(columns, days[symbol]["day"].to_numpy(dtype=columns.dtype))
        bars, missing = (np.bincount(place, days[symbol][name]).astype(int) for name in ("bars", "missing"))
        cells += [
            {
                "x": round(at * cell, 2),
                "y": row * ROW,
                "shade": _shade(missing[at] / (bars[at] + missing[at])),
                "title": f"{symbol} {columns[at]}: {missing[at]} of {bars[at] + missing[at]} bars missing",
            }
            for at in np.flatnonzero(bars + missing)
        ]
    return {
        "unit": unit,
        "cells": cells,
        "names": [(symbol, row * ROW) for row, symbol in enumerate(symbols)],
        "labels": _labels(columns, cell),
        "cell": round(max(cell - 0.5, cell * 0.8), 2),
        "row": ROW,
        "height": ROW * len(symbols),
        "left_out": len(days) - len(symbols),
    }


def _labels(columns: Times, cell: float) -> list[tuple[float, str]]:
    """Return where a month (or, of months, a year) begins and what to call it, not closer than a word is wide."""
    coarse = columns.astype("datetime64[M]" if columns.dtype == np.dtype("datetime64[D]") else "datetime64[Y]")
    begins = np.flatnonzero(columns == coarse.astype(columns.dtype))
    begins = begins if len(begins) else np.zeros(1, dtype=int)
    begins = begins[:: int(np.ceil(len(begins) * LABEL / WIDTH))]
    return [(round(at * cell, 2), str(coarse[at])) for at in begins if at * cell <= WIDTH - LABEL]


def _ends(days: Mapping[str, pd.DataFrame]) -> tuple[pd.Timestamp, pd.Timestamp]:
    return min(mine["day"].min() for mine in days.values()), max(mine["day"].max() for mine in days.values())


def _worst(lost: Mapping[str, float]) -> list[str]:
    """Return the symbols that lost most, at most `SYMBOLS`, in their own order."""
    chosen = set(sorted(lost, key=lambda symbol: -lost[symbol])[:SYMBOLS])
    return [symbol for symbol in lost if symbol in chosen]


def _shade(share: float) -> str:
    """Return a colour: complete is pale green, the rest goes from yellow to red, as the square root of the share."""
    if share == 0:
        return "#dcefe9"
    depth = share**0.5
    return f"rgb({round(245 - 66 * depth)},{round(205 - 137 * depth)},{round(120 - 90 * depth)})"


def score_strips(days: Mapping[str, pd.DataFrame], min_score: float) -> list[dict[str, Any]]:
    """Return the geometry of each symbol's scores: a line hangs down from 100 for each day that lost points."""
    first, last = _ends(days)
    span = max((last - first) / DAY, 1)
    strips = []
    for symbol in _worst({symbol: float((100 - mine["score"]).sum()) for symbol, mine in days.items()}):
        mine = days[symbol]
        bad = mine[mine["score"] < 100]
        lines = [
            {
                "x": round((day - first) / DAY / span * WIDTH, 2),
                "lost": round(100 - score, 2),
                "bad": not admitted,
                "title": f"{day:%Y-%m-%d}: {score:.1f}",
            }
            for day, score, admitted in zip(bad["day"], bad["score"], bad["admitted"], strict=True)
        ]
        strips.append(
            {
                "symbol": symbol,
                "lines": lines,
                "days": len(mine),
                "quarantined": int((~mine["admitted"]).sum()),
                "threshold": 100 - min_score,
                "first": f"{first:%Y-%m-%d}",
                "last": f"{last:%Y-%m-%d}",
            }
        )
    return strips


def _quarantined(days: pd.DataFrame) -> list[dict[str, Any]]:
    bad = days[~days["admitted"]].groupby("symbol", sort=False).head(SHOWN)
    return [
        {
            "symbol": symbol,
            "day": f"{day:%Y-%m-%d}",
            "score": f"{score:.1f}",
            "bars": bars,
            "missing": missing,
        }
        for symbol, day, score, bars, missing in zip(
            bad["symbol"], bad["day"], bad["score"], bad["bars"], bad["missing"], strict=True
        )
    ]


def _findings(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "symbol": report.symbol,
            "rule": rule,
            "severity": RULES[rule].severity,
            "bars": report.count(rule),
            "hits": len(hits),
            "findings": report.findings(rule, SHOWN),
        }
        for rule, hits in report.hits.items()
    ]
