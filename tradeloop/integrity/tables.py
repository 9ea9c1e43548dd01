"""Findings and marks as tables: what the check stage keeps of its reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import from_times
from tradeloop.config import MARKS
from tradeloop.integrity.report import RULES, Report

_NO_TIMES = np.empty(0, dtype="datetime64[us]")


def finding_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return all findings by symbol, rule and row: ``symbol``, ``time``, ``rule``, ``severity``, ``bars``, ``text``."""
    parts = [
        pd.DataFrame(
            {
                "symbol": report.symbol,
                "time": from_times(hits.times),
                "rule": rule,
                "severity": RULES[rule].severity,
                "bars": hits.bars,
                "text": [hits.text(hit) for hit in range(len(hits))],
            }
        )
        for report in reports
        for rule, hits in report.hits.items()
    ]
    return pd.concat([_nothing(severity="", bars=0, text=""), *parts], ignore_index=True)


def mark_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return the bars that are odd and were kept: ``symbol``, ``time``, ``rule``; the rules are those of `MARKS`.

    A run marks each of its bars, and a restatement the copy that stayed.
    """
    parts = [_nothing()]
    for report in reports:
        kept = report.series.times[report.kept]
        for rule in MARKS:
            if rule in report.hits:
                each = report.hits[rule].each
                times = from_times(np.unique(each[np.isin(each, kept)]))
                parts.append(pd.DataFrame({"symbol": report.symbol, "time": times, "rule": rule}))
    return pd.concat(parts, ignore_index=True)


def _nothing(**columns: Any) -> pd.DataFrame:
    """Return a table without rows, whose columns have the types that they would have with some."""
    one = {"symbol": "", "time": from_times(np.zeros(1, dtype="datetime64[us]")), "rule": "", **columns}
    return pd.DataFrame(one)[:0]
