"""What the check stage found in the bars: scores, days that are held back, findings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeloop.cli.output import Json, project, read_report, show_json, show_table
from tradeloop.errors import ConfigError, DataError
from tradeloop.layout import Layout

if TYPE_CHECKING:
    import pandas as pd


def check(
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only findings of this rule.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Findings and days shown, at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what the check stage found: a score a symbol, the worst days, and the findings."""
    layout, _ = project()
    path = layout.reports / "integrity.json"
    summary = read_report(path, key="symbols")
    if summary is None:
        raise DataError(f"{path} is missing: run `dvc repro check` first")
    days, findings = (_table(layout, name) for name in ("days", "findings"))
    symbols = summary["symbols"]
    if symbol is not None:
        if symbol not in symbols:
            raise ConfigError(f"--symbol must be one of {sorted(symbols)}, got {symbol!r}")
        symbols = {symbol: symbols[symbol]}
    if rule is not None:
        from tradeloop.integrity import RULES

        if rule not in RULES:
            raise ConfigError(f"--rule must be one of {list(RULES)}, got {rule!r}")
        findings = findings[findings["rule"] == rule]
    findings = findings[findings["symbol"].isin(list(symbols))]
    bad = days[days["symbol"].isin(list(symbols)) & (days["score"] < 100)]
    bad = bad.sort_values(["score", "day", "symbol"], kind="stable")
    content = {
        "market": summary["market"],
        "symbols": symbols,
        "days": [_day(row) for row in bad.head(limit).to_dict("records")],
        "findings": [_finding(row) for row in findings.head(limit).to_dict("records")],
        "all_findings": len(findings),
    }
    if as_json:
        show_json(content)
    else:
        _show(content, page=layout.reports / "integrity.html", below=len(bad))


def _show(content: dict[str, Any], *, page: Any, below: int) -> None:
    rows = [
        (
            name,
            f"{found['score']:.2f}",
            found["bars"],
            f"{found['days']['quarantined']} of {found['days']['all']}",
            ", ".join(f"{rule} {count}" for rule, count in found["findings"].items()) or "nothing found",
        )
        for name, found in content["symbols"].items()
    ]
    columns = ("symbol", "score", "bars", "days held back", "bars by rule")
    show_table(columns, rows, title=f"integrity of {content['market']}")
    days, findings = content["days"], content["findings"]
    if days:
        keys = ("symbol", "day", "score", "bars", "missing")
        said = ("admitted", "held back")
        worst = [(*(day[key] for key in keys), said[not day["admitted"]]) for day in days]
        show_table((*keys, ""), worst, title=f"worst days: {len(days)} of the {below} that lost points")
    if findings:
        names = ("symbol", "time", "rule", "severity", "bars", "text")
        shown = [[finding[name] for name in names] for finding in findings]
        show_table(names, shown, title=f"findings: {len(findings)} of {content['all_findings']}")
    print(f"with a map of the gaps: {page}")


def _day(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "symbol": row["symbol"],
        "day": f"{row['day']:%Y-%m-%d}",
        "score": round(float(row["score"]), 2),
        "bars": int(row["bars"]),
        "missing": int(row["missing"]),
        "admitted": bool(row["admitted"]),
    }


def _finding(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    named = {str(name): value for name, value in row.items()}
    return {**named, "time": f"{row['time']:%Y-%m-%dT%H:%M:%SZ}", "bars": int(row["bars"])}


def _table(layout: Layout, name: str) -> pd.DataFrame:
    path = layout.clean / f"{name}.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing: run `dvc repro check` first")
    import pandas as pd

    return pd.read_parquet(path)
