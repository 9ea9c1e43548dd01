"""What it costs to keep performance windows, and a turn of the resolver.

    python -m benchmarks.windows [--json] [--outcomes 20000]

Four symbols, three regimes, one model, the windows of `performance`'s defaults. `update` counts one outcome under its
eight keys; `sums` asks for the metrics that follow from sums right after each outcome; `write` stores the windows that
are due, whenever there are any; `recompute` computes all metrics of one window of 1,000 anew, by `tradeloop.metrics`,
which is what each outcome would cost without windows. `turn` resolves one prediction of each of one and of four
symbols on SQLite, as a simulation does (commits do not wait for the disk), and with 10,000 more waiting. Times are
those of this thread on a processor (`cpu`), which other programs change least, and those that passed (`wall`).
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
Times = list[tuple[int, int]]


def timed(what: str, times: Times) -> Json:
    """Return the percentiles of times in nanoseconds, as microseconds."""
    cpu, wall = np.array(times).T / 1e3
    found = {"what": what, "n": len(times), "cpu_mean_us": float(cpu.mean())}
    for name, values in (("cpu", cpu), ("wall", wall)):
        found |= {f"{name}_p{q}_us": float(np.percentile(values, q)) for q in (50, 99)}
    return found


def each(call: Callable[[Any], object], over: list[Any]) -> Times:
    """Return how long each call took, on the processor and by the clock."""
    gc.collect()
    gc.disable()
    times = []
    for it in over:
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        call(it)
        times.append((time.thread_time_ns() - cpu, time.perf_counter_ns() - wall))
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
        if book.due:
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
    times: Times = []
    for bar in range(900, 900 + turns):
        desk.at(bar)
        fresh = [logged(bar, symbol) for symbol in symbols]
        log(database, fresh)
        desk.resolver.note(fresh)
        resolved: list[Resolved] = []
        times += each(lambda into: into.extend(desk.resolver.advance()), [resolved])
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
    names = ("cpu_p50_us", "cpu_p99_us", "cpu_mean_us", "wall_p50_us", "wall_p99_us")
    table = Table("what", "n", *(name.removesuffix("_us").replace("_", " ") + " µs" for name in names))
    for row in results:
        table.add_row(row["what"], str(row["n"]), *(f"{row[name]:.1f}" for name in names))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
