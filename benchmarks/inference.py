"""Inference: the ensemble of ONNX graphs against the native models, in one run, on the same rows.

    python -m benchmarks.inference [--json] [--calls 500]

Models are fitted with the default hyperparameters on rows of the size of the default market (9,000 × 62) and exported;
both ways then forecast the same rows with the same weights, calibration and intervals. The largest difference between
them is shown beside the times. Every time is that of one call for all nine members, on one thread; memory is what a
process of its own reaches after loading and forecasting 10,000 rows (the native way: its three libraries and
the boosted trees alone, so at least that).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tradeloop.config import MODELS, TARGETS, load_params
from tradeloop.ensemble import Ensemble, calibrate, combine, interval

ROOT = Path(__file__).resolve().parents[1]
ROWS, WIDTH = 9_000, 62
SIZES = (1, 1_000, 10_000)

Native = dict[str, dict[str, Any]]
Features = NDArray[np.float32]


def specification() -> dict[str, Any]:
    """Return an ensemble of equal weights over all models and targets."""
    targets: dict[str, Any] = {
        target: {
            "space": "logit" if target == "direction" else "identity",
            "members": {name: {"file": f"{name}/{target}.onnx", "weight": 1 / len(MODELS)} for name in MODELS},
            "intercept": 0.0,
        }
        for target in TARGETS
    }
    targets["direction"]["calibrator"] = {"kind": "platt", "slope": 0.8, "intercept": 0.01}
    targets["return"]["conformal"] = {"scale": "range", "low": -1.8, "high": 1.8}
    targets["range"]["conformal"] = {"scale": "none", "low": -0.6, "high": 0.6}
    schema = {"hash": "0" * 64, "names": [f"f{i}" for i in range(WIDTH)]}
    return {"format": 1, "market": "benchmark", "schema": schema, "coverage": 0.9, "targets": targets}


def fitted(folder: Path) -> tuple[Native, Features]:
    """Fit all members, export them to `folder`, and return them with rows to forecast."""
    from tradeloop.models import open_model
    from tradeloop.splits import Fold

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    signal = x[:, :8].sum(axis=1, dtype=np.float64) / np.sqrt(8)
    labels = {
        "direction": (rng.random(ROWS) < 1 / (1 + np.exp(-0.3 * signal))).astype(np.float64),
        "return": 0.01 * (0.1 * signal + rng.normal(size=ROWS)),
        "range": -4.5 + 0.4 * signal + 0.4 * rng.normal(size=ROWS),
    }
    early = Fold(0, np.arange(int(0.85 * ROWS)), np.arange(int(0.85 * ROWS), ROWS))
    train = load_params(ROOT / "params.yaml").train
    native: Native = {target: {} for target in TARGETS}
    with tqdm(total=len(MODELS) * len(TARGETS), desc="fitting", unit="model") as bar:
        for name in MODELS:
            for target in TARGETS:
                model = open_model(name)(target, getattr(train, name), seed=1)
                native[target][name] = model.fit(x, labels[target], early=early)
                model.export(folder / name)
                bar.update()
    return native, rng.normal(size=(max(SIZES), WIDTH)).astype(np.float32)


def plain(native: Native, spec: dict[str, Any], x: Features) -> NDArray[np.float64]:
    """Forecast with the models as their libraries have them."""
    targets = spec["targets"]
    stacked = {
        target: combine(targets[target], {name: model.predict(x) for name, model in models.items()})
        for target, models in native.items()
    }
    p_up = calibrate(targets["direction"]["calibrator"], stacked["direction"])
    intervals = [
        *interval(targets["return"]["conformal"], stacked["return"], stacked["range"]),
        *interval(targets["range"]["conformal"], stacked["range"], stacked["range"]),
    ]
    return np.column_stack([p_up, stacked["return"], stacked["range"], *intervals])


def served(ensemble: Ensemble, x: Features) -> NDArray[np.float64]:
    """Forecast with the ensemble."""
    f = ensemble.forecast(x)
    return np.column_stack([f.p_up, f.ret, f.range, f.ret_low, f.ret_high, f.range_low, f.range_high])


def seconds(work: Callable[[], object], calls: int) -> NDArray[np.float64]:
    """Return the time of each of `calls` calls, after a few unmeasured ones."""
    taken = np.empty(calls)
    for call in range(-min(5, calls), calls):
        started = time.perf_counter()
        work()
        if call >= 0:
            taken[call] = time.perf_counter() - started
    return taken


def memory(folder: Path, native: bool) -> float:
    """Return the peak resident MB of a fresh process that loads one way and forecasts 10,000 rows."""
    command = [sys.executable, "-m", "benchmarks.inference", "--measure", "native" if native else "onnx", str(folder)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def measure(way: str, folder: Path) -> None:
    """Print the peak resident MB of this process after loading and forecasting; the native way loads its libraries."""
    x = np.zeros((max(SIZES), WIDTH), dtype=np.float32)
    if way == "onnx":
        Ensemble.load(folder, specification()).forecast(x)
    else:
        import sklearn.ensemble
        import torch
        import xgboost

        del sklearn, torch
        for target in TARGETS:
            xgboost.Booster(model_file=str(folder / "xgboost" / f"{target}.json")).inplace_predict(x)
    # Not getrusage: its peak is inherited from the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(float(peak.split()[1]) / 1024)


def benchmark(calls: int) -> dict[str, Any]:
    """Fit, export, and time both ways."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        native, rows = fitted(folder)
        spec = specification()
        ensemble = Ensemble.load(folder, spec)
        size_mb = sum(path.stat().st_size for path in folder.rglob("*.onnx")) / 2**20
        results = []
        for n in SIZES:
            x = np.ascontiguousarray(rows[:n])
            often = max(3, calls // n)
            ours = seconds(lambda x=x: served(ensemble, x), often)
            theirs = seconds(lambda x=x: plain(native, spec, x), max(3, often // 5))
            results.append(
                {
                    "rows": n,
                    "onnx_p50_ms": float(np.median(ours)) * 1e3,
                    "onnx_p99_ms": float(np.percentile(ours, 99)) * 1e3,
                    "native_p50_ms": float(np.median(theirs)) * 1e3,
                    "ratio": float(np.median(theirs) / np.median(ours)),
                    "largest_difference": float(np.abs(served(ensemble, x) - plain(native, spec, x)).max()),
                }
            )
        peak = {"onnx_mb": memory(folder, native=False), "native_mb": memory(folder, native=True)}
    return {"graphs_mb": size_mb, "peak_memory": peak, "calls": results}


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--calls", type=int, default=500, help="calls of one row; larger batches are called less")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]))
        return
    result = benchmark(arguments.calls)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    table = Table("rows", "ONNX p50 / p99 ms", "native p50 ms", "ratio", "largest difference")
    for r in result["calls"]:
        table.add_row(
            f"{r['rows']:,}",
            f"{r['onnx_p50_ms']:.3f} / {r['onnx_p99_ms']:.3f}",
            f"{r['native_p50_ms']:.2f}",
            f"{r['ratio']:.1f}×",
            f"{r['largest_difference']:.1e}",
        )
    Console(width=100).print(table)
    peak = result["peak_memory"]
    print(
        f"graphs {result['graphs_mb']:.1f} MB; peak memory {peak['onnx_mb']:.0f} MB, native {peak['native_mb']:.0f} MB"
    )


if __name__ == "__main__":
    main()
