"""Streaming: what one bar costs, by percentile and by family, and bars a second from a message to the online store.

    python -m benchmarks.streaming [--market eurusd_hourly] [--updates 2000] [--bars 2000] [--json]

`update` takes each of the market's newest bars in turn and gives the row of the features that params.yaml switches on;
"all" is every registered one that the market's data allows. The families' rows are measured one family alone, so that
what they share is counted in each. Processor time is the thread's own; wall time holds whatever else the machine does.

End to end is `Consumer.take`, from JSON to the journal (flushed) and the online store, one or many bars a commit; of
a symbol's bars in one commit only the newest row is computed, as in production. It reads a file market with the newest
bars held back, in a folder of its own, and writes to database 7 of the Redis that `--redis` names.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tradeloop.bars import Bars
from tradeloop.config import FileMarket, Params, load_params, parse_interval
from tradeloop.features import registered, schema_for
from tradeloop.features.streaming import Streaming
from tradeloop.journal import Bar
from tradeloop.layout import Layout
from tradeloop.sources import open_source
from tradeloop.stream.consumer import Consumer, Message

ROOT = Path(__file__).resolve().parents[1]
STORES = ("sqlite", "redis")
BATCHES = (1, 512)
WARM = 20  # bars that are not counted: compiled code is loaded, calendars are read, connections opened


def families(params: Params) -> list[str]:
    """Return every family of which the market's data gives columns."""
    market = params.active
    specs = registered(context=market.context, interval=parse_interval(market.interval), inputs=())
    return list(dict.fromkeys(spec.family for spec in specs))


def with_families(params: Params, chosen: Sequence[str]) -> Params:
    return params.model_copy(update={"features": params.features.model_copy(update={"families": list(chosen)})})


def bar_at(bars: Bars, place: int) -> Bar:
    time_us = int(bars.timestamp[place].astype("datetime64[us]").astype(np.int64))
    values = (float(getattr(bars, name)[place]) for name in ("open", "high", "low", "close", "volume"))
    return Bar(bars.symbol, time_us, *values)


def updates(params: Params, count: int) -> dict[str, Any]:
    """Time `update` over the newest bars of the market's first symbol."""
    market, schema = params.active, schema_for(params)
    source = open_source(market, root=ROOT, seed=params.seed)
    context = {name: source.read_context(name) for name in market.context}
    symbol = market.symbols[0]
    bars = Bars.from_frame(symbol, source.read(symbol), context)
    stream = Streaming(schema, context=market.context, late=params.stream.late_bars)
    for name, frame in context.items():
        stream.seed_context(name, frame)
    count = min(count, len(bars) - stream.lookback - WARM)
    stream.seed(bars[: len(bars) - count - WARM])
    said = [bar_at(bars, place) for place in range(len(bars) - count - WARM, len(bars))]
    wall, own = np.empty(len(said)), np.empty(len(said))
    for place, bar in enumerate(said):
        before, mine = time.perf_counter_ns(), time.thread_time_ns()
        stream.update(bar)
        own[place], wall[place] = time.thread_time_ns() - mine, time.perf_counter_ns() - before
    found = {"features": len(schema), "lookback": stream.lookback, "updates": count}
    for name, taken in (("processor", own[WARM:]), ("wall", wall[WARM:])):
        p50, p99 = np.percentile(taken / 1e3, [50, 99])
        found |= {f"{name}_p50_us": round(float(p50), 1), f"{name}_p99_us": round(float(p99), 1)}
    return found


def end_to_end(params: Params, store: str, batch: int, *, bars: int, redis: str) -> dict[str, Any]:
    """Time `Consumer.take` over bars of all symbols of us_daily."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        changed, said = held_back(params, root, bars, store=store, redis=redis)
        consumer = Consumer(Layout(root), changed)
        consumer.start()
        first, rest = said[:WARM], said[WARM:]
        consumer.take(first)  # connections are open, compiled code is loaded
        began, mine = time.perf_counter(), time.process_time()
        for place in range(0, len(rest), batch):
            consumer.take(rest[place : place + batch])
        wall, own = time.perf_counter() - began, time.process_time() - mine
        problem = consumer.problem
        consumer.close()
    return {
        "store": store,
        "bars_a_commit": batch,
        "bars": len(rest),
        "features": len(schema_for(changed)),
        "bars_a_second": round(len(rest) / wall),
        "bars_a_processor_second": round(len(rest) / own),
        "problem": problem,
    }


def held_back(params: Params, root: Path, bars: int, *, store: str, redis: str) -> tuple[Params, list[Message]]:
    """Write the files of a market without its newest bars; return its parameters, and those bars as messages."""
    market = params.markets["us_daily"]
    source = open_source(market, root=ROOT, seed=params.seed)
    frames = {symbol: source.read(symbol) for symbol in market.symbols}
    each = min(bars // len(frames), min(len(frame) for frame in frames.values()) - 1100)
    (root / "bars").mkdir()
    rows = []
    for symbol, frame in frames.items():
        frame.iloc[:-each].to_parquet(root / "bars" / f"{symbol}.parquet")
        rows += [(row.timestamp, symbol, row) for row in frame.iloc[-each:].itertuples()]
    for name in market.context:
        source.read_context(name).to_parquet(root / "bars" / f"{name}.parquet")
    files = FileMarket(path="bars", context_path="bars")
    mine = market.model_copy(update={"source": "files", "files": files, "clock": "live"})
    serving = params.serving.model_copy(update={"online_store": store, "redis_url": redis})
    changed = params.model_copy(update={"market": "mine", "markets": {"mine": mine}, "serving": serving})
    names = ("open", "high", "low", "close", "volume")
    said = []
    for stamp, symbol, row in sorted(rows, key=lambda item: item[:2]):
        values = {name: getattr(row, name) for name in names}
        content = {"symbol": symbol, "timestamp": stamp.isoformat(), **values}
        said.append(Message(json.dumps(content), "benchmark", str(len(said) + 1)))
    return changed, said


def measure(args: argparse.Namespace) -> dict[str, Any]:
    params = load_params(ROOT / "params.yaml").model_copy(update={"market": args.market})
    every = families(params)
    found: dict[str, Any] = {"market": args.market, "switched on": updates(params, args.updates)}
    found["all"] = updates(with_families(params, every), args.updates)
    found["families"] = {name: updates(with_families(params, [name]), args.updates) for name in every}
    daily = params.model_copy(update={"market": "us_daily"})
    found["end_to_end"] = [
        end_to_end(daily, store, batch, bars=args.bars, redis=args.redis)
        for store in (STORES if args.redis else STORES[:1])
        for batch in BATCHES
    ]
    return found


def show(found: dict[str, Any]) -> None:
    console = Console(width=140)
    columns = ("features", "lookback", "processor_p50_us", "processor_p99_us", "wall_p50_us", "wall_p99_us")
    table = Table("update", *columns, title=f"{found['market']}, {found['all']['updates']} bars, microseconds a bar")
    for name, one in {"switched on": found["switched on"], "all": found["all"], **found["families"]}.items():
        table.add_row(name, *(f"{one[column]:,}" for column in columns))
    console.print(table)
    names = ("store", "bars_a_commit", "bars", "features", "bars_a_second", "bars_a_processor_second")
    ends = Table(*names, title="end to end")
    for one in found["end_to_end"]:
        ends.add_row(*(f"{one[name]:,}" if isinstance(one[name], int) else str(one[name]) for name in names))
    console.print(ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--market", default="eurusd_hourly")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--bars", type=int, default=2000)
    parser.add_argument("--redis", default="127.0.0.1:16379,db=7", help="empty: SQLite alone")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
