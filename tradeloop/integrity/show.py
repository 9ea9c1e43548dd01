"""The integrity report as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tradeloop.integrity.report import Report


def print_table(reports: Sequence[Report], *, console: Console | None = None) -> None:
    """Print one line a symbol: score, bars, and how many bars break which rule."""
    table = Table(title="integrity", title_justify="left")
    for heading in ("symbol", "score", "bars", "first", "last"):
        table.add_column(heading, justify="right" if heading in ("score", "bars") else "left")
    table.add_column("bars by rule", overflow="fold")
    for report in reports:
        summary = report.summary()
        broken = ", ".join(f"{rule} {count}" for rule, count in summary["findings"].items()) or "nothing found"
        first, last = (str(summary[end] or "")[:16] for end in ("first", "last"))
        table.add_row(report.symbol, f"{report.score:.1f}", str(summary["bars"]), first, last, broken)
    (console or Console(stderr=True)).print(table)
