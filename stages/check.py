"""Stage check: hold the raw series to the rules; pass on clean ones, or stop and say why."""

from __future__ import annotations

from functools import partial

from stages._run import run
from tradeloop.atomic import write_bytes, write_json, write_parquet, write_parquets
from tradeloop.config import Params
from tradeloop.inputs.reading import read_stored
from tradeloop.integrity import admit, check_context, examine, finding_table, mark_table, print_table, require
from tradeloop.integrity.page import render
from tradeloop.layout import Layout
from tradeloop.sources import open_source
from tradeloop.sources.table import read_table


def check(layout: Layout, params: Params) -> None:
    """Write cleaned bars and context, findings, days, marks and the reports; nothing unless every series passes."""
    market, config, again = params.active, params.check, params.check.refetch
    raw, clean = (str(folder.relative_to(layout.root)) for folder in (layout.raw, layout.clean))
    shown = {symbol: f"{raw}/bars/{symbol}.parquet" for symbol in market.symbols}
    frames = {s: require("raw", read_table(layout.root / file, shown=file), shown=file) for s, file in shown.items()}
    source = open_source(market, root=layout.sources, seed=params.seed)
    fetch = partial(source.refetch, attempts=again.attempts, backoff=again.backoff)
    found = examine(frames, market, config, fetch=None if source.fixed else fetch)
    print_table(found.reports)
    for note in found.notes():
        print(f"check: {note}")
    bars = {report.symbol: admit(report, config, file=shown[report.symbol]) for report in found.reports}
    bars = {symbol: require("clean", frame, shown=f"{clean}/bars/{symbol}.parquet") for symbol, frame in bars.items()}
    context = {}
    for name in market.context:
        file = f"{raw}/context/{name}.parquet"
        frame = require("context", read_table(layout.root / file, shown=file), shown=file)
        context[name] = check_context(frame, file=file)
    inputs = read_stored(layout.raw, market, root=layout.root)
    write_parquets(layout.clean / "bars", bars)
    write_parquets(layout.clean / "context", context)
    for kind, kept in inputs.items():
        write_parquets(layout.clean / "inputs" / kind, kept)
    write_parquet(layout.clean / "days.parquet", require("days", found.days, shown=f"{clean}/days.parquet"))
    marks = mark_table(found.reports)
    write_parquet(layout.clean / "marks.parquet", require("marks", marks, shown=f"{clean}/marks.parquet"))
    write_parquet(layout.clean / "findings.parquet", finding_table(found.reports))
    sizes = {name: {"rows": len(frame)} for name, frame in context.items()}
    write_json(
        layout.reports / "integrity.json", {"market": params.market, "symbols": found.summary(), "context": sizes}
    )
    write_bytes(layout.reports / "integrity.html", render(found, params.market))


if __name__ == "__main__":
    run("check", check)
