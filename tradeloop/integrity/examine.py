"""All series of a market held to the rules together: reports, days, and what to say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from tradeloop.config import Check, Market, parse_interval
from tradeloop.integrity.days import day_table, quarantined
from tradeloop.integrity.refill import Fetch, Refill, refill
from tradeloop.integrity.report import EXAMPLES, Report, inspect
from tradeloop.integrity.twins import with_twins


@dataclass(frozen=True)
class Examined:
    """What was found in the series of a market.

    Attributes
    ----------
    reports
        One a symbol, in the market's order.
    days
        See `days.day_table`.
    refills
        What came of asking the source again, by symbol; empty where it cannot be asked.
    min_score
        Of a day that is learnt from.
    """

    reports: list[Report]
    days: pd.DataFrame
    refills: Mapping[str, Refill]
    min_score: float

    @cached_property
    def days_of(self) -> Mapping[str, pd.DataFrame]:
        """The days by symbol, in the market's order."""
        return {str(symbol): mine for symbol, mine in self.days.groupby("symbol", sort=False)}

    def notes(self) -> Iterator[str]:
        """Yield what a person should know beside the table: bars that came, twins, days that are held back."""
        for report in self.reports:
            symbol, gaps = report.symbol, self.refills.get(report.symbol)
            if gaps is not None and gaps.asked:
                came = f"{gaps.came} of {gaps.missing} missing bars came"
                beside = f", {gaps.restated} beside them had changed" if gaps.restated else ""
                yield f"{symbol}: asked again for {gaps.asked} gap{'s' * (gaps.asked > 1)}: {came}{beside}"
            if gaps is not None and gaps.problem:
                yield f"{symbol}: the source did not answer for its gaps: {gaps.problem}"
            for finding in report.findings("twin"):
                yield f"{symbol}: {finding.text}"
            days = self.days_of[symbol]
            if len(bad := quarantined(days)):
                why = f"below check.min_score = {self.min_score:g}: {_shown(bad)}"
                yield f"{symbol}: {len(bad)} of {len(days)} days are held back from learning, {why}"

    def summary(self) -> dict[str, Any]:
        """Return the reports' summaries by symbol, with their days and what came of asking again."""
        return {report.symbol: {**report.summary(), **self._beside(report.symbol)} for report in self.reports}

    def _beside(self, symbol: str) -> dict[str, Any]:
        bad = quarantined(self.days_of[symbol])
        examples = [
            {"day": f"{day:%Y-%m-%d}", "score": round(float(score), 2)}
            for day, score in zip(bad["day"][:EXAMPLES], bad["score"], strict=False)
        ]
        days = {
            "all": len(self.days_of[symbol]),
            "quarantined": len(bad),
            **({"worst": examples} if examples else {}),
        }
        gaps = self.refills.get(symbol)
        if gaps is None or not gaps.asked:
            return {"days": days}
        return {"days": days, "refetched": {"gaps": gaps.asked, "missing": gaps.missing, "came": gaps.came}}


def _shown(days: pd.DataFrame) -> str:
    """Return the worst days as text."""
    pairs = zip(days["day"][:EXAMPLES], days["score"], strict=False)
    worst = ", ".join(f"{day:%Y-%m-%d} ({score:.1f})" for day, score in pairs)
    return f"{worst}, …" if len(days) > EXAMPLES else worst


def examine(
    frames: Mapping[str, pd.DataFrame], market: Market, config: Check, *, fetch: Fetch | None = None
) -> Examined:
    """Hold the raw bars of all symbols to the rules, ask again for gaps, look for twins and score the days.

    Parameters
    ----------
    frames
        Raw bars by symbol.
    fetch
        Asks the source again for a stretch of a symbol's bars; None: it has nothing that it did not give.
    """
    limit = config.refetch.gaps
    interval = parse_interval(market.interval)
    reports, refills = [], {}
    for symbol, frame in frames.items():
        report = inspect(symbol, frame, calendar=market.calendar, interval=interval, config=config)
        if fetch is not None and "gap" in report.hits:
            refills[symbol] = refill(report, fetch, gaps=limit)
            filled = refills[symbol].frame
            if len(filled) > report.rows:
                report = inspect(symbol, filled, calendar=market.calendar, interval=interval, config=config)
        reports.append(report)
    reports = with_twins(reports, config.twin_correlation)
    return Examined(reports, day_table(reports, config.min_score), refills, config.min_score)
