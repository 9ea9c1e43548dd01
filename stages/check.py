"""Stage check: hold the raw series to the rules; pass on clean ones, or stop and say why."""

from __future__ import annotations

from stages._run import run
from tradeloop.atomic import write_json, write_parquets
from tradeloop.bars import COLUMNS, CONTEXT_COLUMNS
from tradeloop.config import Params, parse_interval
from tradeloop.inputs.reading import read_stored
from tradeloop.integrity import admit, check_context, inspect, print_table
from tradeloop.layout import Layout
from tradeloop.sources.table import read_canonical


def check(layout: Layout, params: Params) -> None:
    """Write cleaned bars, context and the report; nothing at all unless every series passes."""
    market = params.active
    shown = {symbol: f"{layout.raw.relative_to(layout.root)}/bars/{symbol}.parquet" for symbol in market.symbols}
    reports = [
        inspect(
            symbol,
            read_canonical(layout.root / file, COLUMNS, shown=file),
            calendar=market.calendar,
            interval=parse_interval(market.interval),
            config=params.check,
        )
        for symbol, file in shown.items()
    ]
    print_table(reports)
    bars = {report.symbol: admit(report, params.check, file=shown[report.symbol]) for report in reports}
    context = {}
    for name in market.context:
        file = f"{layout.raw.relative_to(layout.root)}/context/{name}.parquet"
        context[name] = check_context(read_canonical(layout.root / file, CONTEXT_COLUMNS, shown=file), file=file)
    inputs = read_stored(layout.raw, market, root=layout.root)
    write_parquets(layout.clean / "bars", bars)
    write_parquets(layout.clean / "context", context)
    for kind, frames in inputs.items():
        write_parquets(layout.clean / "inputs" / kind, frames)
    summary = {
        "market": params.market,
        "symbols": {report.symbol: report.summary() for report in reports},
        "context": {name: {"rows": len(frame)} for name, frame in context.items()},
    }
    write_json(layout.reports / "integrity.json", summary)


if __name__ == "__main__":
    run("check", check)
