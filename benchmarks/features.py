"""Features: the engine against the plain pandas way, in one run, on the same bars, column for column.

    python -m benchmarks.features [--json] [--repeats 7]

Both compute every column of each market's schema; the largest difference between them is shown beside the times. Each
time is the fastest of several, taken in turn, so that other work on the machine touches both alike. The tail is what a
service does when a bar closes: the newest row from the last `feature_lookback` bars.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.plain_features import plain_features
from tradeloop.bars import Bars
from tradeloop.config import Params, load_params
from tradeloop.features import compute, compute_tail, feature_lookback, schema_for
from tradeloop.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
MARKETS = ("us_daily", "eurusd_hourly", "synthetic")
TAILS = 300


def market_bars(params: Params) -> list[Bars]:
    """Read every symbol of the active market."""
    source = open_source(params.active, root=ROOT, seed=params.seed)
    context = {name: source.read_context(name) for name in params.active.context}
    return [Bars.from_frame(symbol, source.read(symbol), context) for symbol in params.active.symbols]


def frame_of(bars: Bars) -> pd.DataFrame:
    """Return the frame that the plain way starts from."""
    columns = {name: getattr(bars, name) for name in ("timestamp", "open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns | dict(bars.context))


def in_turn(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Return the fastest seconds of each, run one after the other, `repeats` times."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for position, work in enumerate(works):
            started = time.perf_counter()
            work()
            best[position] = min(best[position], time.perf_counter() - started)
    return best


def percentiles(work: Callable[[int], object], count: int) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds, of `count` calls."""
    taken = []
    for call in range(count):
        started = time.perf_counter()
        work(call)
        taken.append(time.perf_counter() - started)
    return float(np.percentile(taken, 50)) * 1e3, float(np.percentile(taken, 99)) * 1e3


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Time batch and tail of one market."""
    params = load_params(ROOT / "params.yaml").model_copy(update={"market": name})
    schema, market, context = schema_for(params), market_bars(params), tuple(params.active.context)
    frames = [frame_of(bars) for bars in market]
    ours, plain = in_turn(
        repeats,
        lambda: [compute(bars, schema) for bars in market],
        lambda: [plain_features(frame, context) for frame in frames],
    )
    rows = compute(market[0], schema).astype(float)
    theirs = plain_features(frames[0], context)[list(schema.names)].to_numpy()
    lookback = feature_lookback(params)
    ends = np.random.default_rng(0).integers(lookback, len(market[0]), TAILS)
    tails = [market[0][end - lookback : end] for end in ends]
    tail_p50, tail_p99 = percentiles(lambda call: compute_tail(tails[call], schema), TAILS)
    tail_frames = [frame_of(tail) for tail in tails[:30]]
    plain_p50, plain_p99 = percentiles(lambda call: plain_features(tail_frames[call], context).iloc[-1], 30)
    count = sum(len(bars) for bars in market)
    return {
        "market": name,
        "bars": count,
        "columns": len(schema),
        "seconds": ours,
        "plain_seconds": plain,
        "ratio": plain / ours,
        "bars_per_second": count / ours,
        "largest_difference": float(np.nanmax(np.abs(np.where(np.isfinite(theirs), rows - theirs, np.nan)))),
        "tail_p50_ms": tail_p50,
        "tail_p99_ms": tail_p99,
        "plain_tail_p50_ms": plain_p50,
        "plain_tail_p99_ms": plain_p99,
    }


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with np.errstate(divide="ignore", invalid="ignore"):  # the plain way divides by empty windows
        results = [measure(market, arguments.repeats) for market in MARKETS]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    table = Table("market", "bars × columns", "engine s", "pandas s", "ratio", "bars/s", "largest diff",
                  "tail p50/p99 ms", "pandas tail p50/p99 ms")  # fmt: skip
    for r in results:
        table.add_row(
            r["market"],
            f"{r['bars']:,} × {r['columns']}",
            f"{r['seconds']:.3f}",
            f"{r['plain_seconds']:.3f}",
            f"{r['ratio']:.1f}×",
            f"{r['bars_per_second']:,.0f}",
            f"{r['largest_difference']:.1e}",
            f"{r['tail_p50_ms']:.2f} / {r['tail_p99_ms']:.2f}",
            f"{r['plain_tail_p50_ms']:.1f} / {r['plain_tail_p99_ms']:.1f}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
