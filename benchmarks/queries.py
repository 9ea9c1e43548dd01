"""Performance queries at ten million predictions.

    python -m benchmarks.queries [--json] [--predictions 300000] [--calls 50] [--only sqlite|postgresql] [--check]

Fills a SQLite file in a temporary folder, and a database of its own on the project's PostgreSQL (`make services`), with
hourly predictions of 100 symbols by four models in turn, 66 features each; an outcome of all but the newest 10,000; a
stored window for every second outcome; 50,000 fills. The rows are made by the databases themselves and hold numbers
that mean nothing. Then each query is asked `--calls` times, each time about something else, and both databases are
removed. Ten million predictions need about 20 GB, one database after the other. `--check` also times the full account
of every prediction, which no page asks for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from tests.databases import fresh_url
from tradeloop.monitoring.accounts import check
from tradeloop.monitoring.fills import costs, realised
from tradeloop.monitoring.ledger import Ledger
from tradeloop.monitoring.queries import outcomes, performance, summary
from tradeloop.state.database import Database
from tradeloop.state.tables import PENDING_TRIGGER

MARKET = "bench"
SYMBOLS, MODELS, PENDING, FILLS = 100, 4, 10_000, 50_000
START = datetime(2015, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
METRICS = json.dumps({f"metric_number_{i:02d}": 0.123456789012 + i for i in range(29)})
Json = dict[str, Any]

# What differs between the two dialects: how to count, to name a time and to write a number in hexadecimal.
DIALECT = {
    "sqlite": {
        "numbers": "(WITH RECURSIVE c(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM c WHERE i + 1 < {last}) "
        "SELECT i FROM c)",
        "time": "strftime('%Y-%m-%d %H:%M:%S.000000', 1420070400 + 3600 * ({hours}), 'unixepoch')",
        "hex": "printf('%012x', {value})",
        "bytes": "zeroblob(264)",
        "no": "0",
        "yes": "1",
        "drop": "DROP TRIGGER predictions_pending",
    },
    "postgresql": {
        "numbers": "generate_series({first}::bigint, {last}::bigint - 1)",
        "time": "timestamptz '2015-01-01 00:00:00+00' + ({hours}) * interval '1 hour'",
        "hex": "lpad(to_hex({value}), 12, '0')",
        "bytes": "decode(repeat('00', 264), 'hex')",
        "no": "false",
        "yes": "true",
        "drop": "DROP TRIGGER predictions_pending ON predictions; DROP FUNCTION predictions_pending",
    },
}


class Filler:
    """Fills a database with SQL of its own dialect."""

    def __init__(self, database: Database, predictions: int) -> None:
        self.database = database
        self.dialect = DIALECT[database.engine.dialect.name]
        self.kind = database.engine.dialect.name
        self.predictions = predictions

    def run(self) -> None:
        """Write everything."""
        with self.database.write() as connection:
            for statement in self.dialect["drop"].split(";"):
                connection.execute(text(statement))
        resolved = self.predictions - PENDING
        self._fill("predictions", self._prediction(), self.predictions)
        self._fill("outcomes", self._outcome(), resolved)
        self._fill("performance_windows", self._window(), self.predictions // 2)
        self._fill("fills", self._fill_row(), min(FILLS, resolved))
        with self.database.write() as connection:
            last = f"SELECT market, id FROM predictions WHERE id >= {self._id(str(resolved))} ORDER BY id"
            connection.execute(text(f"INSERT INTO pending (market, prediction_id) {last}"))
            connection.execute(text(f"INSERT INTO outcome_totals VALUES ('{MARKET}', 'resolved', {resolved})"))
            key = 'market, model, symbol, regime, arm, "window"'
            rest = "as_of, outcome_seq, count, metrics"
            newest = f"SELECT max(seq) FROM performance_windows GROUP BY {key}"
            copied = f"SELECT {key}, {rest} FROM performance_windows WHERE seq IN ({newest})"
            connection.execute(text(f"INSERT INTO performance_newest ({key}, {rest}) {copied}"))
            for statement in PENDING_TRIGGER[self.kind]:
                connection.exec_driver_sql(statement)
        with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")

    def _fill(self, table: str, columns: dict[str, str], rows: int, at_once: int = 500_000) -> None:
        names = ", ".join(f'"{name}"' for name in columns)
        for first in range(0, rows, at_once):
            numbers = self.dialect["numbers"].format(first=first, last=min(first + at_once, rows))
            source = f"FROM {numbers} AS numbers(i)" if self.kind == "postgresql" else f"FROM {numbers}"
            with self.database.write() as connection:
                made = f"INSERT INTO {table} ({names}) SELECT {', '.join(columns.values())} {source}"
                connection.exec_driver_sql(made.replace("%", "%%") if self.kind == "postgresql" else made)
            print(f"{self.kind}: {table}: {min(first + at_once, rows):,} of {rows:,}", file=sys.stderr, flush=True)

    def _id(self, number: str) -> str:
        return f"'01a1fd00-0000-7000-8000-' || {self.dialect['hex'].format(value=number)}"

    def _time(self, hours: str) -> str:
        return self.dialect["time"].format(hours=hours)

    def _model(self, number: str, of: int) -> str:
        """Each model in turn serves a stretch."""
        letters = " ".join(f"WHEN {i} THEN '{letter * 64}'" for i, letter in enumerate("abcd"))
        return f"CASE {number} * {MODELS} / {of} {letters} END"

    def _prediction(self) -> dict[str, str]:
        bar = self._time(f"i / {SYMBOLS}")
        forecast = {"p_up": "0.51", "ret": "0.001", "ret_low": "-0.01", "ret_high": "0.01"}
        forecast |= {"range": "0.008", "range_low": "0.004", "range_high": "0.016"}
        return {
            **{"id": self._id("i"), "market": f"'{MARKET}'", "symbol": f"'S' || i % {SYMBOLS}", "asked_at": bar},
            **{"logged_at": bar, "feature_time": bar, "max_age": "3600", "features": self.dialect["bytes"]},
            **{"model": self._model("i", self.predictions), "schema_hash": f"'{'e' * 64}'", **forecast},
            **{"verdict": "'trade'", "reasons": "'[]'", "clock": "'live'", "side": "'long'", "edge": "0.001"},
            **{"arm": "'champion'", "answered": self.dialect["yes"], "latency": "1.5"},
        }

    def _outcome(self) -> dict[str, str]:
        end = self._time(f"i / {SYMBOLS} + 1")
        return {
            **{"seq": "i + 1", "prediction_id": self._id("i"), "market": f"'{MARKET}'"},
            **{"symbol": f"'S' || i % {SYMBOLS}", "status": "'resolved'", "label_end": end, "direction": "1.0"},
            **{"ret": "0.002", "range": "-4.8", "entry_price": "100.0", "exit_price": "100.2", "regime": "'normal'"},
            **{"repeat": self.dialect["no"], "revision": "0", "resolved_at": end, "recorded_at": end},
        }

    def _window(self) -> dict[str, str]:
        """Rows of 101 symbols (with all), 4 regimes, 2 arms and 6 windows, one key after the other."""
        names = " ".join(
            f"WHEN {i} THEN '{name}'" for i, name in enumerate(("n:50", "n:200", "n:1000", "t:7d", "t:30d", "t:90d"))
        )
        regimes = " ".join(f"WHEN {i} THEN '{name}'" for i, name in enumerate(("*", "low", "normal", "high")))
        symbol = f"CASE WHEN i / 48 % {SYMBOLS + 1} = {SYMBOLS} THEN '*' ELSE 'S' || i / 48 % {SYMBOLS + 1} END"
        rows = self.predictions // 2
        return {
            **{"market": f"'{MARKET}'", "model": self._model("i", rows), "symbol": symbol},
            **{"regime": f"CASE i / 12 % 4 {regimes} END", "arm": "CASE i / 6 % 2 WHEN 0 THEN '*' ELSE 'champion' END"},
            **{"window": f"CASE i % 6 {names} END", "as_of": self._time(f"i / {SYMBOLS // 2}")},
            **{"outcome_seq": "i * 2", "count": "200", "metrics": f"'{METRICS}'"},
        }

    def _fill_row(self) -> dict[str, str]:
        spread = max(1, (self.predictions - PENDING) // FILLS)
        at = self._time(f"i * {spread} / {SYMBOLS} + 1")
        return {
            **{"fill_id": "'f' || i", "prediction_id": self._id(f"(i * {spread})"), "market": f"'{MARKET}'"},
            **{"symbol": f"'S' || i * {spread} % {SYMBOLS}", "side": "'buy'", "quantity": "1.0", "price": "100.05"},
            **{"expected_price": "100.0", "fee": "0.05", "filled_at": at, "recorded_at": at},
        }


def queries(database: Database, predictions: int) -> dict[str, Callable[[int], object]]:
    """Return what is asked, by name; each takes the number of the call."""
    end = START + HOUR * (predictions // SYMBOLS)
    ledger = Ledger(database, MARKET)

    def model(call: int) -> str:
        return "abcd"[call % MODELS] * 12

    def symbol(call: int) -> str:
        return f"S{call * 37 % SYMBOLS}"

    month = end - 30 * 24 * HOUR
    return {
        "performance: newest, all keys (500 rows)": lambda _: performance(database, MARKET),
        "performance: newest of a model": lambda i: performance(database, MARKET, model=model(i), symbol="*"),
        "performance: newest of a symbol": lambda i: performance(database, MARKET, symbol=symbol(i)),
        "performance: newest of a window": lambda _: performance(database, MARKET, window="n:200", symbol="*"),
        "performance: 30 days of a window": lambda _: performance(
            database, MARKET, model=model(3), window="n:200", since=month
        ),
        "performance: 30 days of a symbol": lambda i: performance(
            database, MARKET, model=model(3), symbol=symbol(i), since=month
        ),
        "performance: a model's whole life": lambda i: performance(
            database, MARKET, model=model(i), window="n:1000", since=START
        ),
        "outcomes: newest 100": lambda _: outcomes(database, MARKET),
        "outcomes: newest 100 of a symbol": lambda i: outcomes(database, MARKET, symbol=symbol(i)),
        "outcomes: 100 after a number": lambda i: outcomes(
            database, MARKET, after_seq=predictions - PENDING - 1 - i * 100
        ),
        "summary": lambda _: summary(database, MARKET),
        "fills: newest 100 costs": lambda _: costs(database, MARKET, 100),
        "fills: realised, 30 days": lambda _: realised(database, MARKET, month),
        "resolver: what is new": lambda _: ledger.news(10**9, 50_000),
        "resolver: 2000 outcomes again": lambda i: sum(
            1 for _ in ledger.replay(i * predictions // 100, i * predictions // 100 + 2_000)
        ),
    }


def ask(database: Database, predictions: int, calls: int, *, whole: bool) -> list[Json]:
    """Time each query."""
    found = []
    for name, query in queries(database, predictions).items():
        times = []
        for call in range(calls + 1):
            started = time.perf_counter()
            query(call)
            times.append(time.perf_counter() - started)
        p50, p99 = (float(it) * 1e3 for it in np.percentile(times[1:], [50, 99]))
        first = times[0] * 1e3
        found.append({"query": name, "first_ms": first, "p50_ms": p50, "p99_ms": p99, "max_ms": max(times[1:]) * 1e3})
    if whole:
        started = time.perf_counter()
        problems = check(database, MARKET)
        taken = (time.perf_counter() - started) * 1e3
        if problems:
            sys.exit(f"the accounts do not balance: {problems}")
        found.append({"query": "accounts.check", "first_ms": taken, "p50_ms": taken, "p99_ms": taken, "max_ms": taken})
    return found


@contextmanager
def filled(kind: str, predictions: int) -> Iterator[Database]:
    """Yield a full database, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, fresh_url(kind, Path(folder)) as url:
        # It can be filled again: no need to wait for the disk.
        database = Database.open(url, durable=False)
        try:
            started = time.perf_counter()
            Filler(database, predictions).run()
            print(f"{kind}: filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)
            yield database
        finally:
            database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--predictions", type=int, default=300_000)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    results = []
    for kind in [arguments.only] if arguments.only else ["sqlite", "postgresql"]:
        with filled(kind, arguments.predictions) as database:
            rows = ask(database, arguments.predictions, arguments.calls, whole=arguments.check)
            results += [{"database": kind, "predictions": arguments.predictions, **row} for row in rows]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    table = Table("database", "query", "first ms", "p50 ms", "p99 ms", title=f"{arguments.predictions:,} predictions")
    for row in results:
        shown = (f"{row[name]:.1f}" for name in ("first_ms", "p50_ms", "p99_ms"))
        table.add_row(row["database"], row["query"], *shown)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
