"""What the check stage found, as one HTML file for a person: gaps, scores by day, findings. Opens without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tradeloop.integrity.examine import Examined
from tradeloop.integrity.report import RULES, Report

WIDTH = 900  # of a plot, in its own units
ROW = 16  # of the heat map
BY_DAY = 130  # days up to which the heat map has a column a day, beyond it a column a month
SYMBOLS = 60  # that are drawn, the worst; the table has all
SHOWN = 25  # findings of one rule and symbol, and quarantined days of one symbol


def render(found: Examined, market: str) -> bytes:
    """Return the report as an HTML page; the same findings give the same bytes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tradeloop"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("integrity.html.j2").render(
        market=market,
        rows=[_row(report) for report in found.reports],
        notes=list(found.notes()),
        heat=heat_map(found.days),
        strips=score_strips(found.days, found.min_score),
        tables=[table for report in found.reports for table in _findings(report)],
        days=_quarantined(found.days),
        min_score=found.min_score,
        rules=RULES,
        width=WIDTH,
        shown=SHOWN,
    )
    return page.encode()


def _row(report: Report) -> dict[str, Any]:
    bars = report.rows + report.count("gap")
    return {
        **report.summary(),
        "symbol": report.symbol,
        "broken": [(rule, report.count(rule), 100 * report.count(rule) / bars) for rule in report.hits],
    }


def heat_map(days: pd.DataFrame) -> dict[str, Any]:
    """Return the geometry of the map of gaps: a row a symbol, a column a day or month, shaded by the share missing."""
    by_day = days["day"].nunique() <= BY_DAY
    period = days["day"].dt.to_period("D" if by_day else "M")
    parts = days.groupby(["symbol", period], sort=False)[["bars", "missing"]].sum()
    columns = pd.period_range(period.min(), period.max(), freq="D" if by_day else "M")
    symbols = _worst(days, "missing")
    cell = WIDTH / len(columns)
    place = {column: at for at, column in enumerate(columns)}
    row = {symbol: at for at, symbol in enumerate(symbols)}
    cells = [
        {
            "x": round(place[when] * cell, 2),
            "y": row[symbol] * ROW,
            "shade": _shade(missing / (bars + missing)),
            "title": f"{symbol} {when}: {missing} of {bars + missing} bars missing",
        }
        for (symbol, when), bars, missing in zip(parts.index, parts["bars"], parts["missing"], strict=True)
        if symbol in row
    ]
    # A label where a month (or, of months, a year) begins, not closer than a word is wide.
    begins = [c for c in columns if (c.day == 1 if by_day else c.month == 1)] or [columns[0]]
    begins = begins[:: int(np.ceil(len(begins) * 60 / WIDTH))]
    labels = [(round(place[c] * cell, 2), c.strftime("%Y-%m" if by_day else "%Y")) for c in begins]
    return {
        "unit": "day" if by_day else "month",
        "cells": cells,
        "names": [(symbol, row[symbol] * ROW) for symbol in symbols],
        "labels": labels,
        "cell": round(max(cell - 0.5, cell * 0.8), 2),
        "row": ROW,
        "height": ROW * len(symbols),
        "left_out": days["symbol"].nunique() - len(symbols),
    }


def _worst(days: pd.DataFrame, by: str) -> list[str]:
    """Return the symbols with most of a column, at most `SYMBOLS`, in their own order."""
    totals = days.groupby("symbol", sort=False)[by].sum()
    chosen = set(totals.sort_values(ascending=False, kind="stable").index[:SYMBOLS])
    return [str(symbol) for symbol in totals.index if symbol in chosen]


def _shade(share: float) -> str:
    """Return a colour: complete is pale green, the rest goes from yellow to red, as the square root of the share."""
    if share == 0:
        return "#dcefe9"
    depth = share**0.5
    return f"rgb({round(245 - 66 * depth)},{round(205 - 137 * depth)},{round(120 - 90 * depth)})"


def score_strips(days: pd.DataFrame, min_score: float) -> list[dict[str, Any]]:
    """Return the geometry of each symbol's scores: a line hangs down from 100 for each day that lost points."""
    lost = days.assign(lost=100 - days["score"])
    first, last = days["day"].min(), days["day"].max()
    span = max((last - first) / pd.Timedelta(days=1), 1)
    strips = []
    for symbol in _worst(lost, "lost"):
        mine = lost[lost["symbol"] == symbol]
        bad = mine[mine["lost"] > 0]
        lines = [
            {
                "x": round((day - first) / pd.Timedelta(days=1) / span * WIDTH, 2),
                "lost": round(points, 2),
                "bad": not admitted,
                "title": f"{day:%Y-%m-%d}: {100 - points:.1f}",
            }
            for day, points, admitted in zip(bad["day"], bad["lost"], bad["admitted"], strict=True)
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
