"""Features: the engine against the plain pandas way, in one run, on the same bars, column for column.

    python -m benchmarks.features [--json] [--repeats 7]

Both compute those columns of each market that `benchmarks.plain_features` knows, calendar and session apart, whose
plain way is a loop; the largest difference between them
is shown beside the times. Each time is the fastest of several, taken in turn, so that other work on the machine touches
both alike. The tail is what a service does when a bar closes: the newest row from the last `feature_lookback` bars,
here of the market's whole schema and then of each family alone, whether the market has it on or not; these are
processor time, and what families share is counted in each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.plain_features import BASE, CONTEXT, plain_features
from tradeloop.bars import Bars, from_times
from tradeloop.config import Params, load_params, parse_interval
from tradeloop.features import (
    FeatureSpec,
    compute,
    compute_tail,
    feature_lookback,
    registered,
    schema_for,
    schema_hash,
    specs_for,
)
from tradeloop.schema import Schema
from tradeloop.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
MARKETS = ("us_daily", "eurusd_hourly", "synthetic")
TAILS = 300
LOOPS = ("calendar", "session")


def market_bars(params: Params) -> list[Bars]:
    """Read every symbol of the active market."""
    source = open_source(params.active, root=ROOT, seed=params.seed)
    context = {name: source.read_context(name) for name in params.active.context}
    return [Bars.from_frame(symbol, source.read(symbol), context) for symbol in params.active.symbols]


def frame_of(bars: Bars) -> pd.DataFrame:
    """Return the frame that the plain way starts from."""
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame({"timestamp": from_times(bars.timestamp), **columns, **bars.context})


def in_turn(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Return the fastest seconds of each, run one after the other, `repeats` times."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for position, work in enumerate(works):
            started = time.perf_counter()
            work()
            best[position] = min(best[position], time.perf_counter() - started)
    return best


def percentiles(
    work: Callable[[int], object], count: int, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds, of `count` calls; the first one is not counted."""
    work(0)
    taken = []
    for call in range(count):
        started = clock()
        work(call)
        taken.append(clock() - started)
    return float(np.percentile(taken, 50)) * 1e3, float(np.percentile(taken, 99)) * 1e3


def schema_of(params: Params, specs: Sequence[FeatureSpec]) -> Schema:
    """Return the schema of these columns on the active market."""
    market = params.active
    names = tuple(spec.name for spec in specs)
    return Schema(params.market, names, schema_hash(specs), market.interval, market.calendar)


def tails_of(bars: Bars, lookback: int) -> list[Bars]:
    """Return the bars that decide a row, for rows drawn at random."""
    ends = np.random.default_rng(0).integers(lookback, len(bars), TAILS)
    return [bars[end - lookback : end] for end in ends]


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Time batch and tail of one market."""
    params = load_params(ROOT / "params.yaml").model_copy(update={"market": name})
    market, context = market_bars(params), tuple(params.active.context)
    frames = [frame_of(bars) for bars in market]
    known = {*BASE, *(f"{series.lower()}_{name}" for series in context for name in CONTEXT)}
    specs = [spec for spec in specs_for(params) if spec.name in known and spec.family not in LOOPS]
    names, schema = [spec.name for spec in specs], schema_of(params, specs)
    ours, plain = in_turn(
        repeats,
        lambda: [compute(bars[:], schema) for bars in market],
        lambda: [plain_features(frame, context, names) for frame in frames],
    )
    rows = compute(market[0], schema).astype(float)
    theirs = plain_features(frames[0], context, names)[names].to_numpy()
    whole, tails = schema_for(params), tails_of(market[0], feature_lookback(params))
    tail_p50, tail_p99 = percentiles(lambda call: compute_tail(tails[call], whole), TAILS)
    plain_tails = [frame_of(tail) for tail in tails[:30]]
    plain_p50, plain_p99 = percentiles(lambda call: plain_features(plain_tails[call], context, names).iloc[-1], 30)
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
        "tail_columns": len(whole),
        "tail_p50_ms": tail_p50,
        "tail_p99_ms": tail_p99,
        "plain_tail_p50_ms": plain_p50,
        "plain_tail_p99_ms": plain_p99,
        "families": [family_tail(params, market[0], family) for family in families_of(params)],
    }


def families_of(params: Params) -> list[str]:
    """Return the families that the market has columns of, whether it has them on or not."""
    return list(dict.fromkeys(spec.family for spec in _possible(params)))


def family_tail(params: Params, bars: Bars, family: str) -> dict[str, Any]:
    """Return what one family's newest row costs, in microseconds of processor time."""
    specs = [spec for spec in _possible(params) if spec.family == family]
    schema, tails = schema_of(params, specs), tails_of(bars, max(spec.lookback for spec in specs))
    p50, p99 = percentiles(lambda call: compute_tail(tails[call], schema), TAILS, clock=time.thread_time)
    return {"family": family, "columns": len(specs), "p50_us": p50 * 1e3, "p99_us": p99 * 1e3}


def _possible(params: Params) -> list[FeatureSpec]:
    market = params.active
    return registered(
        context=market.context, interval=parse_interval(market.interval), inputs=(), calendar=market.calendar
    )


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
            f"{r['tail_p50_ms']:.2f} / {r['tail_p99_ms']:.2f} ({r['tail_columns']} columns)",
            f"{r['plain_tail_p50_ms']:.1f} / {r['plain_tail_p99_ms']:.1f}",
        )
    console = Console(width=160)
    console.print(table)
    tails = Table("newest row", *(r["market"] for r in results), title="columns: µs p50 / p99 of processor time")
    shown = [{one["family"]: one for one in r["families"]} for r in results]
    for family in dict.fromkeys(name for found in shown for name in found):
        cells = (found.get(family) for found in shown)
        tails.add_row(family, *(f"{c['columns']}: {c['p50_us']:.0f} / {c['p99_us']:.0f}" if c else "" for c in cells))
    console.print(tails)


if __name__ == "__main__":
    main()
