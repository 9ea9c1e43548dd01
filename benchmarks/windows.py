"""What it costs to keep performance windows, and a turn of the resolver.

    python -m benchmarks.windows [--json] [--outcomes 20000]

Four symbols, three regimes, one model, the windows of `performance`'s defaults. `update` counts one outcome under its
eight keys; `sums` asks for the metrics that follow from sums right after each outcome; `write` stores the windows that
are due after each outcome, spread over all outcomes; `recompute` computes all metrics of one window of 1,000 anew, by
`tradeloop.metrics`, which is what each outcome would cost without windows. `turn` resolves one prediction of each of one
and of four symbols on SQLite, as a simulation does (commits do not wait for the disk), and with 10,000 more waiting.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.monitoring.test_performance import recomputed
from tests.outcomes import MARKET, Desk, log, logged, stream
from tradeloop.config import Labels, Performance
from tradeloop.monitoring.performance import Key, PerformanceBook
from tradeloop.monitoring.records import Resolved
from tradeloop.monitoring.scorecard import MarketFacts
from tradeloop.state.database import Database

FACTS = MarketFacts(bars_per_year=8766.0, horizon=1, cost_bps=5.0)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
MODEL = "a" * 64
Json = dict[str, Any]


def timed(what: str, times: list[float]) -> Json:
    """Return the percentiles of times in seconds, as microseconds."""
    p50, p99 = (float(it) * 1e6 for it in np.percentile(times, [50, 99]))
    return {"what": what, "n": len(times), "p50_us": p50, "p99_us": p99, "mean_us": float(np.mean(times)) * 1e6}


def each(call: Callable[[Any], object], over: list[Any]) -> list[float]:
    """Return how long each call took."""
    gc.collect()
    gc.disable()
    times = []
    for it in over:
        started = time.perf_counter()
        call(it)
        times.append(time.perf_counter() - started)
    gc.enable()
    return times


def windows(outcomes: list[Resolved], database: Database) -> list[Json]:
    """Measure the book."""
    book, warm = PerformanceBook(Performance(), FACTS), len(outcomes) // 2
    found = [timed("update, one outcome", each(book.update, outcomes)[warm:])]

    book = PerformanceBook(Performance(), FACTS)
    key = Key(MODEL)

    def update_and_ask(resolved: Resolved) -> None:
        book.update(resolved)
        book.sums(key, "n:1000", resolved.outcome.resolved_at)

    found.append(timed("update + sums of n:1000", each(update_and_ask, outcomes)[warm:]))

    book = PerformanceBook(Performance(), FACTS)

    def update_and_write(resolved: Resolved) -> None:
        book.update(resolved)
        with database.write() as connection:
            book.write(connection, MARKET, resolved.outcome.resolved_at)

    found.append(timed("update + write of what is due", each(update_and_write, outcomes)[warm:]))
    found.append(timed("recompute one window of 1000", each(recomputed, [outcomes[-1000:]] * 20)))
    return found


def turns(folder: Path, symbols: tuple[str, ...], *, waiting: int, turns: int = 400) -> Json:
    """Measure a turn that resolves one prediction of each symbol."""
    database = Database.open(f"sqlite:///{folder / f'{len(symbols)}-{waiting}.db'}", durable=False)
    desk = Desk(database, symbols=symbols, size=1_000 + turns, labels=Labels())
    if waiting:
        log(database, [logged(999 + turns, symbols[i % len(symbols)]) for i in range(waiting)])
    times = []
    for bar in range(900, 900 + turns):
        desk.at(bar)
        fresh = [logged(bar, symbol) for symbol in symbols]
        log(database, fresh)
        desk.resolver.note(fresh)
        started = time.perf_counter()
        resolved = desk.resolver.advance()
        times.append(time.perf_counter() - started)
        assert len(resolved) == (len(symbols) if bar > 900 else 0)
    assert desk.resolver.pending == waiting + len(symbols)
    database.close()
    return timed(f"turn, {len(symbols)} outcomes, {waiting} waiting", times[20:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--outcomes", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(f"sqlite:///{folder}/windows.db", durable=False)
        results = windows(stream(arguments.outcomes, symbols=SYMBOLS), database)
        database.close()
        for symbols in (SYMBOLS[:1], SYMBOLS):
            results += [turns(Path(folder), symbols, waiting=waiting) for waiting in (0, 10_000)]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    table = Table("what", "n", "p50 µs", "p99 µs", "mean µs")
    for row in results:
        table.add_row(row["what"], str(row["n"]), *(f"{row[name]:.1f}" for name in ("p50_us", "p99_us", "mean_us")))
    Console().print(table)


if __name__ == "__main__":
    main()
