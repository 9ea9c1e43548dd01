"""Reading feature rows online: the adapter, and Feast's own call for an array and for 60 columns.

    python -m benchmarks.online_read [--json] [--reads 2000]

One process, SQLite, and Redis where `make services` has started it. `plain` is what Feast's documentation shows:
`get_online_features` of one column a feature; all three answer with the same numbers, which is checked first.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tradeloop.config import Params, load_params
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.online import OnlineRows, OnlineStore

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = Schema("benchmark", tuple(f"f{number:02d}" for number in range(60)), "b" * 64)
SYMBOLS = [f"S{number}" for number in range(100)]
TIME = np.datetime64("2020-01-01", "us")


def fill(layout: Layout, params: Params) -> tuple[OnlineStore, Any]:
    """Write the same rows as arrays and as columns; return the adapter and Feast's store."""
    from feast import FeatureView, Field, FileSource
    from feast.types import Float32, String

    from tradeloop.state.feast_repo import open_store
    from tradeloop.state.feast_views import symbol_entity

    values = np.random.default_rng(0).normal(size=(len(SYMBOLS), len(SCHEMA))).astype(np.float32)
    adapter = OnlineStore(layout, params)
    adapter.write(SYMBOLS, OnlineRows.of(values, np.full(len(SYMBOLS), TIME)), SCHEMA)
    store = open_store(layout, params, SCHEMA)
    columns = FeatureView(
        name="columns",
        entities=[symbol_entity()],
        schema=[Field(name="symbol", dtype=String), *(Field(name=name, dtype=Float32) for name in SCHEMA.names)],
        source=FileSource(name="columns", path="none.parquet", timestamp_field="timestamp"),
        ttl=timedelta(0),
    )
    store.apply([symbol_entity(), columns])
    frame = pd.DataFrame(values, columns=list(SCHEMA.names)).assign(
        symbol=SYMBOLS, timestamp=pd.Timestamp(TIME, tz="UTC")
    )
    store.write_to_online_store("columns", frame)
    return adapter, store


def ways(adapter: OnlineStore, store: Any) -> dict[str, Callable[[list[str]], np.ndarray]]:
    """Return the ways to read rows of symbols, each giving float32 (n, 60)."""
    columns = [f"columns:{name}" for name in SCHEMA.names]

    def plain(symbols: list[str]) -> np.ndarray:
        answer = store.get_online_features(columns, [{"symbol": symbol} for symbol in symbols]).to_dict()
        return np.array([answer[name] for name in SCHEMA.names], dtype=np.float32).T

    def array(symbols: list[str]) -> np.ndarray:
        rows = [{"symbol": symbol} for symbol in symbols]
        answer = store.get_online_features([f"{SCHEMA.vector_view}:vector"], rows).to_dict()
        return np.array(answer["vector"], dtype=np.float32)

    return {
        "adapter": lambda symbols: adapter.read(symbols, SCHEMA).vectors,
        "Feast, array": array,
        "Feast, 60 columns (plain)": plain,
    }


def measure(read: Callable[[list[str]], np.ndarray], symbols: list[str], reads: int) -> dict[str, float]:
    """Return the median and the 99th percentile of `reads` reads, in milliseconds."""
    for _ in range(20):
        read(symbols)
    gc.collect()
    gc.disable()
    times = np.empty(reads)
    for number in range(reads):
        started = time.perf_counter()
        read(symbols)
        times[number] = time.perf_counter() - started
    gc.enable()
    return {"p50_ms": float(np.quantile(times, 0.5)) * 1e3, "p99_ms": float(np.quantile(times, 0.99)) * 1e3}


def run(kind: str, reads: int) -> list[dict[str, Any]]:
    """Measure every way for 1, 4 and 100 symbols on one online store."""
    params = load_params(ROOT / "params.yaml")
    serving = params.serving.model_copy(update={"online_store": kind, "redis_url": f"{params.serving.redis_url},db=15"})
    params = params.model_copy(update={"serving": serving})
    results = []
    with tempfile.TemporaryDirectory() as folder:
        adapter, store = fill(Layout(Path(folder)), params)
        readers = ways(adapter, store)
        for count in (1, 4, 100):
            symbols = SYMBOLS[:count]
            expected = readers["adapter"](symbols)
            for name, read in readers.items():
                if not np.array_equal(read(symbols), expected):
                    sys.exit(f"{kind}: {name} answers otherwise than the adapter")
                timed = measure(read, symbols, max(50, reads // count))
                results.append({"store": kind, "symbols": count, "way": name, **timed})
    return results


def redis_client() -> Any:
    """Return a client of the project's Redis, if that answers; its database 15 is this benchmark's."""
    import redis

    host, _, port = load_params(ROOT / "params.yaml").serving.redis_url.partition(":")
    client = redis.Redis(host=host, port=int(port), db=15)
    try:
        client.ping()
    except redis.RedisError:
        return None
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reads", type=int, default=2_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = run("sqlite", arguments.reads)
    if client := redis_client():
        results += run("redis", arguments.reads)
        client.flushdb()
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    table = Table("store", "symbols", "way", "p50 ms", "p99 ms", "× adapter's p50")
    for row in results:
        adapter = next(
            r["p50_ms"] for r in results if (r["store"], r["symbols"]) == (row["store"], row["symbols"])
        )  # the adapter is measured first
        table.add_row(
            row["store"], str(row["symbols"]), row["way"], f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}",
            f"{row['p50_ms'] / adapter:.1f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
