"""Alpha158: the engine against Qlib itself, on the same panel, in one run, and whether their values agree.

    uv venv --python 3.11 /tmp/qlib && uv pip install --python /tmp/qlib/bin/python pyqlib==0.9.7
    python -m benchmarks.against_pyqlib --peer-python /tmp/qlib/bin/python [--json] [--symbols 50 200] [--repeats 3]

Qlib needs an environment of its own. Both sides go from files to a frame of (symbol, time) × 158 float32 columns: Qlib
from its own binary store through `D.features`, the engine from one parquet file. Runs alternate; Qlib's memory cache,
which would hand the last answer out again, is emptied before each; imports, compilation and Qlib's index of its store
are left out. Workers are processes at Qlib, as it wants, and threads here, for the kernels release Python's lock.
VWAP, which bars lack, is the typical price on both sides.

Values agree if they lie within 1e-4 of Qlib's, relative. Qlib takes logs and ratios in float32, which a correlation
over few bars near zero shows: that is what differs in CORR and CORD (with float64 logs pandas' own correlation is ours
to 1e-8), and in VSUMD, a difference of two sums that are nearly equal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BARS = 2520
WORKERS = (1, 2)
AGREE = 1e-4
"""Relative to Qlib's value. Qlib computes in float32, so what is a difference of nearly equal numbers is coarser."""


def write_store(panel: pd.DataFrame, folder: Path) -> None:
    """Write the panel as parquet and as Qlib's store: a float32 file for each symbol and field."""
    panel.to_parquet(folder / "panel.parquet", index=False)
    days = panel["timestamp"].drop_duplicates().dt.strftime("%Y-%m-%d").tolist()
    symbols = panel["symbol"].drop_duplicates().tolist()
    for name in ("calendars", "instruments"):
        (folder / name).mkdir()
    (folder / "calendars" / "day.txt").write_text("\n".join(days) + "\n")
    spans = "".join(f"{symbol}\t{days[0]}\t{days[-1]}\n" for symbol in symbols)
    (folder / "instruments" / "all.txt").write_text(spans)
    panel = panel.assign(vwap=(panel["high"] + panel["low"] + panel["close"]) / 3)
    for symbol, frame in panel.groupby("symbol", sort=False):
        place = folder / "features" / str(symbol).lower()
        place.mkdir(parents=True)
        for field in ("open", "high", "low", "close", "volume", "vwap"):
            np.concatenate([[0.0], frame[field]]).astype("<f4").tofile(place / f"{field}.day.bin")


def peer(folder: Path) -> None:
    """Answer, in Qlib's environment, each number of workers on standard input with seconds; leave the last frame."""
    import qlib
    from qlib.config import C
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data import D
    from qlib.data.cache import H

    qlib.init(provider_uri=str(folder), region="us", logging_level=40)
    fields, names = Alpha158DL.get_feature_config()
    symbols = D.list_instruments(D.instruments("all"), as_list=True)
    print(json.dumps({"version": qlib.__version__, "columns": len(fields)}), flush=True)
    for line in sys.stdin:
        C["kernels"] = int(line)
        H.clear()
        started = time.perf_counter()
        found = D.features(symbols, fields, freq="day")
        seconds = time.perf_counter() - started
        if not (folder / "peer.npy").is_file():
            np.save(folder / "peer.npy", found.to_numpy(np.float32))
            (folder / "peer.json").write_text(json.dumps(names))
        print(seconds, flush=True)


class Ours:
    """The engine on the panel's parquet file."""

    def __init__(self, folder: Path) -> None:
        from tradeloop.features import registered, schema_hash
        from tradeloop.schema import Schema

        specs = registered(["alpha158"])
        self.schema = Schema("panel", tuple(spec.name for spec in specs), schema_hash(specs))
        self._path = folder / "panel.parquet"

    def run(self, workers: int) -> pd.DataFrame:
        """Return the frame of all symbols."""
        from tradeloop.bars import Bars
        from tradeloop.features import compute

        panel = pd.read_parquet(self._path)
        fields = [panel[name].to_numpy(np.float64) for name in ("open", "high", "low", "close", "volume")]
        times = panel["timestamp"].dt.tz_localize(None).to_numpy()
        symbols = panel["symbol"].to_numpy()
        starts = np.flatnonzero(np.r_[True, symbols[1:] != symbols[:-1]])
        rows = np.empty((len(self.schema), len(panel)), dtype=np.float32)

        def one(span: tuple[int, int]) -> None:
            part = slice(*span)
            bars = Bars(str(symbols[span[0]]), times[part], *(values[part] for values in fields))
            rows[:, part] = compute(bars, self.schema).T

        spans = list(zip(starts, [*starts[1:], len(panel)], strict=True))
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, spans)) if workers > 1 else list(map(one, spans))
        index = pd.MultiIndex.from_arrays([panel["symbol"], panel["timestamp"]])
        return pd.DataFrame(rows.T, index=index, columns=list(self.schema.names), copy=False)


def compare(ours: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Return how many values are finite, and by column the share beyond AGREE and the largest difference of those."""
    theirs = np.load(folder / "peer.npy")
    names = [_name(name) for name in json.loads((folder / "peer.json").read_text())]
    differing: dict[str, tuple[float, float]] = {}
    compared = 0
    for column, name in enumerate(names):
        left, right = ours[name].to_numpy(np.float64), theirs[:, column].astype(np.float64)
        both = np.isfinite(left) & np.isfinite(right)
        compared += int(both.sum())
        apart = np.abs(left - right)[both]
        wrong = apart > AGREE * np.abs(right[both])
        if wrong.any():
            differing[name] = float(wrong.mean()), float(apart[wrong].max())
    finite = {"here": int(np.isfinite(ours.to_numpy()).sum()), "there": int(np.isfinite(theirs).sum())}
    return {"columns": len(names), "compared": compared, "finite": finite, "differing": differing}


def _name(name: str) -> str:
    base = name.rstrip("0123456789")
    kbar = base.startswith("K") and not name.endswith("0")
    return f"alpha158_{name.lower()}" if kbar else f"alpha158_{base.lower()}_{name[len(base) :]}"


def measure(symbols: int, repeats: int, peer_python: Path) -> dict[str, Any]:
    """Time both sides in turn on a panel of `symbols`."""
    from benchmarks.panels import bootstrapped

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(bootstrapped(symbols, BARS), folder)
        ours = Ours(folder)
        frame = ours.run(1)  # compiles
        command = [str(peer_python), str(Path(__file__).resolve()), "--peer", str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            about = json.loads(process.stdout.readline())

            def theirs(workers: int) -> float:
                process.stdin.write(f"{workers}\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            cases = [_case(ours, theirs, workers, repeats) for workers in WORKERS]
            process.stdin.close()
        return {"symbols": symbols, "rows": len(frame), "qlib": about, "cases": cases, "values": compare(frame, folder)}


def _case(ours: Ours, theirs: Callable[[int], float], workers: int, repeats: int) -> dict[str, Any]:
    here, there = [], []
    for _ in range(repeats):
        there.append(theirs(workers))
        started = time.perf_counter()
        ours.run(workers)
        here.append(time.perf_counter() - started)
    ratios = np.array(there) / np.array(here)
    return {"workers": workers, "ours": _summary(here), "qlib": _summary(there), "ratio": _summary(ratios)}


def _summary(values: Any) -> dict[str, float]:
    return {"min": float(np.min(values)), "median": float(np.median(values)), "max": float(np.max(values))}


def main() -> None:
    """Measure, and print lines or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="Python of the environment that has pyqlib")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--symbols", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    arguments = parser.parse_args()
    if arguments.peer:
        peer(arguments.peer)
        return
    if not arguments.peer_python:
        parser.error("--peer-python is missing: see --help for how to make that environment")
    results = [measure(symbols, arguments.repeats, arguments.peer_python) for symbols in arguments.symbols]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for found in results:
        for case in found["cases"]:
            print(
                f"{found['symbols']} symbols × {BARS} bars, workers: {case['workers']}: "
                f"here {case['ours']['min']:.2f} s (median {case['ours']['median']:.2f}), "
                f"qlib {found['qlib']['version']} {case['qlib']['min']:.2f} s (median {case['qlib']['median']:.2f}): "
                f"{case['ratio']['median']:.1f}× faster ({case['ratio']['min']:.1f} to {case['ratio']['max']:.1f})"
            )
        values = found["values"]
        print(f"  {values['compared']:,} values of {values['columns']} columns are finite on both sides; differing:")
        for name, (share, apart) in sorted(values["differing"].items(), key=lambda item: -item[1][0]):
            print(f"    {name}: {share:.4%} by more than {AGREE:g} of the value, at most {apart:.1e}")


if __name__ == "__main__":
    main()
