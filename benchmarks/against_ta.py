"""All columns of the default families against `ta`'s add_all_ta_features, on the same bars, in one run.

    uv venv --python 3.11 /tmp/ta && uv pip install --python /tmp/ta/bin/python ta==0.11.0
    python -m benchmarks.against_ta --peer-python /tmp/ta/bin/python [--json] [--bars 2520] [--repeats 3]

They compute other columns, so what is compared is values (columns × bars) a second, on one core each, from a frame in
memory to columns in memory; and what a bar costs that has just closed: the newest row here, and there, for want of
anything shorter, all of it again over as many bars as the longest feature here looks back on. Runs alternate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def peer(folder: Path) -> None:
    """Answer, in the environment of `ta`, each file name on standard input with the seconds and columns it took."""
    import ta

    for line in sys.stdin:
        frame = pd.read_parquet(folder / line.strip())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started = time.perf_counter()
            found = ta.add_all_ta_features(frame.copy(), "open", "high", "low", "close", "volume")
            seconds = time.perf_counter() - started
        print(json.dumps([seconds, found.shape[1] - frame.shape[1]]), flush=True)


def measure(bars_count: int, repeats: int, peer_python: Path) -> dict[str, Any]:
    """Time both in turn on one series."""
    from benchmarks.panels import ROOT, bootstrapped
    from tradeloop.bars import Bars
    from tradeloop.config import load_params
    from tradeloop.features import compute, compute_tail, schema_for, schema_lookback

    params = load_params(ROOT / "params.yaml")
    market = params.active.model_copy(update={"context": []})
    update = {"markets": {**params.markets, params.market: market}}
    update["features"] = params.features.model_copy(update={"columns": None})
    schema = schema_for(params.model_copy(update=update))
    frame = bootstrapped(1, bars_count).astype(dict.fromkeys(("open", "high", "low", "close", "volume"), float))
    bars = Bars.from_frame("S000", frame)
    lookback = schema_lookback(schema, ())
    here: list[float] = []
    there: list[float] = []
    newest_here: list[float] = []
    newest_there: list[float] = []
    columns = 0
    with tempfile.TemporaryDirectory() as name:
        frame.to_parquet(Path(name) / "all", index=False)
        frame.tail(lookback).to_parquet(Path(name) / "tail", index=False)
        command = [str(peer_python), str(Path(__file__).resolve()), "--peer", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None

            def ask(file: str) -> tuple[float, int]:
                process.stdin.write(f"{file}\n")
                process.stdin.flush()
                seconds, made = json.loads(process.stdout.readline())
                return seconds, made

            ask("all")  # imports
            compute(bars[:], schema), compute_tail(bars[:], schema)  # compiles
            for _ in range(repeats):
                seconds, columns = ask("all")
                there.append(seconds)
                here.append(_seconds(lambda: compute(bars[:], schema)))
                newest_there.append(ask("tail")[0])
                newest_here.append(min(_seconds(lambda: compute_tail(bars[-lookback:], schema)) for _ in range(20)))
            process.stdin.close()
    ours, theirs = len(schema) * bars_count / np.array(here), columns * bars_count / np.array(there)
    return {
        "bars": bars_count, "columns": len(schema), "ta_columns": columns,
        "seconds": min(here), "ta_seconds": min(there),
        "values_per_second": float(max(ours)), "ta_values_per_second": float(max(theirs)),
        "ratio": float(np.median(ours / theirs)),
        "lookback": lookback, "newest_ms": min(newest_here) * 1e3, "ta_newest_ms": min(newest_there) * 1e3,
    }  # fmt: skip


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, and print lines or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="Python of the environment that has ta")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bars", type=int, default=2520)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    arguments = parser.parse_args()
    if arguments.peer:
        peer(arguments.peer)
        return
    if not arguments.peer_python:
        parser.error("--peer-python is missing: see --help for how to make that environment")
    found = measure(arguments.bars, arguments.repeats, arguments.peer_python)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{found['bars']} bars: here {found['columns']} columns in {found['seconds'] * 1e3:.0f} ms, "
        f"ta {found['ta_columns']} in {found['ta_seconds'] * 1e3:.0f} ms: "
        f"{found['values_per_second']:,.0f} against {found['ta_values_per_second']:,.0f} values/s, "
        f"{found['ratio']:.0f}× as many"
    )
    print(
        f"newest row: here {found['newest_ms']:.2f} ms, ta {found['ta_newest_ms']:.1f} ms over {found['lookback']} bars"
    )


if __name__ == "__main__":
    main()
