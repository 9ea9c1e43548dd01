"""Recovery: what a policy regains after a concept drift, how soon, and at which cost.

    python -m benchmarks.recovery [--seeds 4] [--shape sign_flip] [--policies loop weekly rolling static] [--json]

On the synthetic market a first model is trained on 2,000 bars; 500 bars later the concept drifts, and 2,000 more bars
follow. All policies see the same bars and train the same model (XGBoost on the features of params.yaml) by the same
code, gate included:

loop      this loop, with the parameters of params.yaml;
weekly    retrain every week on everything, serve the newest at once;
rolling   the same on the newest 1,000 bars;
always    retrain every day on the newest 1,000 bars, serve the newest at once;
static    never retrain.

*accuracy* is in expectation: the oracle's probability that each call is right, so that the luck of the draws is out of
it. *half* is the number of bars until half of what was lost is regained for good (mean over 100 bars), `–` if never.
*CPU* is what the trainings cost. Medians over the seeds, with the least and the most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tradeloop.config import Params, load_params
from tradeloop.features import feature_lookback
from tradeloop.metrics import METRICS
from tradeloop.simulation.driver import Plan, Policy, Stage, simulate
from tradeloop.simulation.looping import Looping
from tradeloop.simulation.policies import Scheduled, Static
from tradeloop.simulation.record import Record
from tradeloop.simulation.report import recovery
from tradeloop.simulation.world import World, build_world
from tradeloop.sources.synthetic import Synthetic

ROOT = Path(__file__).resolve().parents[1]
WARM_UP, DRIFT, AFTER, STRETCH = 2_000, 500, 2_000, 100
ROLLING = timedelta(hours=1_000)
POLICIES: dict[str, Callable[[Stage], Policy]] = {
    "loop": Looping,
    "weekly": lambda _: Scheduled(timedelta(days=7)),
    "rolling": lambda _: Scheduled(timedelta(days=7), ROLLING),
    "always": lambda _: Scheduled(timedelta(days=1), ROLLING),
    "static": lambda _: Static(),
}


def parameters(shape: str, accuracy: float, seed: int) -> Params:
    """Return params.yaml's parameters on a drifting market; the gate's ceiling is for liquid markets, not for this."""
    raw = load_params(ROOT / "params.yaml").model_dump()
    raw |= {"market": "synthetic", "seed": seed}
    first = WARM_UP + feature_lookback(Params.model_validate(raw))
    planted = raw["markets"]["synthetic"]["synthetic"]
    planted |= {"bars": first + DRIFT + AFTER, "bayes_accuracy": accuracy, "drift": shape, "drift_bar": first + DRIFT}
    raw["gate"]["max_direction_auc"] = 0.95
    raw["split"] |= {"folds": 3, "min_train": 0.5}
    raw["evaluate"]["bootstrap"] = 200
    raw["train"]["xgboost"] |= {"n_estimators": 80, "learning_rate": 0.06}
    raw["performance"]["every"] = 1_000
    return Params.model_validate(raw)


def run(task: tuple[str, str, float, int]) -> dict[str, Any]:
    """Simulate one policy on one seed."""
    policy, shape, accuracy, seed = task
    params = parameters(shape, accuracy, seed)
    world = build_world(params, root=ROOT)
    with tempfile.TemporaryDirectory() as home:
        record = simulate(params, world, Plan(WARM_UP), POLICIES[policy], home=Path(home) / "run")
    return {"policy": policy, "seed": seed, **_measure(record, world, params)}


def _measure(record: Record, world: World, params: Params) -> dict[str, Any]:
    answers = record.answers()
    p_up = Synthetic(params.active, root=ROOT, seed=params.seed).oracle("SYN").p_up
    bars = world.bars["SYN"]
    truth = p_up[np.searchsorted(bars.timestamp, answers.time)]
    right = np.where(answers.forecast["direction"] > 0.5, truth, 1 - truth)
    drift_bar = params.active.synthetic.drift_bar
    assert drift_bar is not None
    drift = int(np.searchsorted(world.times, bars.timestamp[drift_bar - 1]))  # the forecast of the drifting bar
    found = recovery(answers.step, right, drift=drift, stretch=STRETCH)
    tail = answers.between(len(world.times) - 500, len(world.times))
    r2 = METRICS["r2"](tail.actual["range"], tail.forecast["range"])
    after = answers.step >= drift
    alarms = [change.step - drift for change in record.changes if change.kind == "alarm" and change.step >= drift]
    return {
        **found.as_dict(),
        "mean_after": float(right[after].mean()),
        "range_r2": r2,
        "alarm_delay": alarms[0] if alarms else None,
        "trainings": len(record.trainings),
        "cpu_seconds": record.cpu_seconds,
        "promotions": sum(change.kind == "promoted" for change in record.changes),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--shape", default="sign_flip", choices=["sign_flip", "new_regime", "fading_edge"])
    parser.add_argument("--accuracy", type=float, default=0.65)
    parser.add_argument("--policies", nargs="+", default=["loop", "weekly", "rolling", "static"], choices=POLICIES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tasks = [
        (name, options.shape, options.accuracy, 100 + seed)
        for seed in range(options.seeds)
        for name in options.policies
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        runs = list(tqdm(pool.imap_unordered(run, tasks), total=len(tasks), unit="run", disable=options.json))
    if options.json:
        print(json.dumps(sorted(runs, key=lambda each: (each["policy"], each["seed"])), indent=2))
        return
    title = f"{options.shape} at {options.accuracy:.0%}, {options.seeds} seeds: accuracy in expectation"
    table = Table(
        "policy", "before", "trough", "last 100", "regained", "half", "mean after", "R² at the end", title=title
    )
    for column in ("alarm", "trainings", "CPU s"):
        table.add_column(column)
    for name in options.policies:
        mine = [each for each in runs if each["policy"] == name]
        row = [_spread(mine, key) for key in ("before", "trough", "after", "regained")]
        row += [_spread(mine, "half_time", 0), _spread(mine, "mean_after"), _spread(mine, "range_r2", 2)]
        row += [_spread(mine, "alarm_delay", 0), _spread(mine, "trainings", 0), _spread(mine, "cpu_seconds", 0)]
        table.add_row(name, *row)
    Console(width=190).print(table)


def _spread(runs: list[dict[str, Any]], key: str, digits: int = 3) -> str:
    known = [each[key] for each in runs if each[key] is not None]
    if not known:
        return "–"
    middle = f"{np.median(known):.{digits}f} [{min(known):.{digits}f}, {max(known):.{digits}f}]"
    return middle if len(known) == len(runs) else f"{middle} ({len(known)} of {len(runs)})"


if __name__ == "__main__":
    main()
