"""Drift of features: how often it is reported where nothing has changed, how often where something has, and its cost.

    python -m benchmarks.feature_drift [--seeds 10]

*Stationary and shifted rows*: 66 columns of an AR(1) with a known coefficient, 8,000 rows to train on and windows of
250 after them, as they are, shifted, and widened. *Real markets*: the newest 40% of each, window by window, against the
60% before. Beside the monitor stands what is commonly done: PSI of .2 alone, and Kolmogorov-Smirnov tests for
independent rows under Benjamini and Hochberg's rule.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from tradeloop.config import Drift, load_params
from tradeloop.monitoring.drift import Sketches, discoveries
from tradeloop.reference import Sketch
from tradeloop.reference.measure import ranked_sketch
from tradeloop.simulation.world import build_world

ROOT = Path(__file__).resolve().parents[1]
TRAINED, WINDOW, COLUMNS = 8_000, 250, 66
MEMORIES = (0.0, 0.5, 0.9, 0.97, 0.99)
CHANGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "none": lambda rows: rows,
    "shift of 1 sd": lambda rows: rows + 1,
    "shift of 2 sd": lambda rows: rows + 2,
    "sd × 1.5": lambda rows: rows * 1.5,
    "sd × 2": lambda rows: rows * 2,
}


def sketches(rows: NDArray[Any], time_number: NDArray[Any]) -> Sketches:
    """Return the sketches of training rows."""
    made = [Sketch.model_validate(ranked_sketch(column.astype(np.float32), time_number)) for column in rows.T]
    return Sketches(made, [len(rows)] * len(made))


def autoregressive(seeds: int, config: Drift) -> Table:
    """Return the shares of columns reported, by memory and change."""
    table = Table("memory", *CHANGES, "looks with any, of none changed", title="share of the columns reported")
    for memory in MEMORIES:
        shares: dict[str, list[float]] = {name: [] for name in CHANGES}
        for seed in range(seeds):
            warm = int(20 / (1 - memory))
            draws = np.random.default_rng(seed).standard_normal((TRAINED + 10_000 + warm, COLUMNS))
            rows = lfilter([np.sqrt(1 - memory**2)], [1, -memory], draws, axis=0)[warm:]
            trained = sketches(rows[:TRAINED], np.arange(TRAINED))
            for at in range(TRAINED, len(rows) - WINDOW, 2_000):
                for name, change in CHANGES.items():
                    found = trained.compare(change(rows[at : at + WINDOW]).astype(np.float32))
                    shares[name].append(float(found.drifted(config).mean()))
        looks = shares["none"]
        means = [f"{np.mean(values):.2%}" for values in shares.values()]
        table.add_row(str(memory), *means, f"{sum(share > 0 for share in looks)} of {len(looks)}")
    return table


def real(config: Drift) -> Table:
    """Return what three ways report on the newest 40% of two real markets."""
    table = Table("market", "looks", "PSI ≥ .2", "KS, as if independent", "monitor", title="share of features reported")
    for market in ("us_daily", "eurusd_hourly"):
        params = load_params(ROOT / "params.yaml").model_copy(update={"market": market})
        matrix = build_world(params, root=ROOT).matrix
        split = int(0.6 * len(matrix))
        numbers = np.unique(matrix.timestamp[:split], return_inverse=True)[1]
        trained, shares = sketches(matrix.x[:split], numbers), []
        for at in range(split, len(matrix) - WINDOW, WINDOW):
            window = matrix.x[at : at + WINDOW]
            found = trained.compare(window)
            pairs = zip(window.T, matrix.x[:split].T, strict=True)
            plain = np.array([ks_2samp(now, before).pvalue for now, before in pairs])
            reported = (found.psi >= 0.2, discoveries(plain, config.false_discovery), found.drifted(config))
            shares.append([float(one.mean()) for one in reported])
        table.add_row(market, str(len(shares)), *(f"{share:.1%}" for share in np.mean(shares, axis=0)))
    return table


def cost() -> float:
    """Return the least time of one comparison in milliseconds."""
    rows = np.random.default_rng(0).standard_normal((2_000 + WINDOW, COLUMNS)).astype(np.float32)
    trained, best = sketches(rows[:2_000], np.arange(2_000)), float("inf")
    for _ in range(100):
        began = time.perf_counter()
        trained.compare(rows[2_000:])
        best = min(best, time.perf_counter() - began)
    return 1e3 * best


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="markets for each memory")
    config = load_params(ROOT / "params.yaml").drift
    console = Console(width=120)
    console.print(autoregressive(parser.parse_args().seeds, config))
    console.print(real(config))
    console.print(f"one comparison of {WINDOW} rows × {COLUMNS} features: {cost():.1f} ms at best")


if __name__ == "__main__":
    main()
