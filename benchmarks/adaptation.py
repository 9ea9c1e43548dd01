"""Does online adaptation help, and what does it cost? Planted drifts over many seeds, and the real holdout.

    python -m benchmarks.adaptation [--json] [--seeds 20] [--bars 2500] [--workers 1]

A synthetic market of 60% Bayes accuracy; the model is trained on the first 4,000 bars and then watched. After 500 bars
the market drifts (the bars before are the same for every shape); `overconfident` is a bundle whose log odds are
doubled, without any drift. What is compared, at each bar, is the forecast that the service would have given with the
snapshot applied by then, and the packaged one; differences are means over seeds with 95% t-intervals, on the bars after
the drift. Then the same on the holdout of us_daily, which needs the outputs of `make repro`; and the time that one
outcome takes, the wall's and the processor's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats
from tqdm import tqdm

from tradeloop.adaptation import Adaptation
from tradeloop.bundle import Bundle
from tradeloop.config import TARGETS, Adapt, Params, load_params
from tradeloop.dataset import Matrix
from tradeloop.ensemble import Ensemble, Forecast
from tradeloop.evaluate.holdout import open_holdout
from tradeloop.layout import Layout
from tradeloop.loop.adapt import Adapter
from tradeloop.manifest import verify
from tradeloop.metrics.bootstrap import stationary_index
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.simulation.ahead import part
from tradeloop.simulation.training import train_bundle
from tradeloop.simulation.world import World, build_world, take

TRAIN = 4000
BEFORE = 500
SHAPES = ("none", "overconfident", "sign_flip", "fading_edge", "new_regime", "volatility_jump")
MEASURES = ("log_loss", "range_error", "return_missed", "range_missed", "return_score", "range_score")
CLOCKS = ("seconds", "processor")
LABELS = {
    "log_loss": "log loss, nats",
    "range_error": "squared error of log range",
    "return_missed": "return outside its interval",
    "range_missed": "range outside its interval",
    "return_score": "interval score of the return, % of packaged width",
    "range_score": "interval score of the range, % of packaged width",
}


@dataclass(frozen=True)
class Watched:
    """A model over n later rows: measures by row and forecast, what was applied when, and what a step took.

    `seconds` are the wall's, `processor` what this thread used of them: on shared cores the two differ.
    """

    packaged: dict[str, np.ndarray]
    adapted: dict[str, np.ndarray]
    first_applied: dict[str, int | None]
    changes: int
    seconds: np.ndarray
    processor: np.ndarray


def watch(bundle: Bundle, matrix: Matrix, config: Adapt) -> Watched:
    """Let an adapter follow the rows of `matrix`, each learned when its label has ended."""
    forecast = bundle.forecast(matrix.x)
    adapter = Adapter(bundle, config)
    served, seconds, processor, changes = deepcopy(forecast), [], [], 0
    first: dict[str, int | None] = dict.fromkeys(TARGETS)
    adaptation: Adaptation | None = None
    times, starts = np.unique(matrix.timestamp, return_index=True)
    starts = np.append(starts, len(matrix.x))
    for step in range(len(times)):
        rows = slice(int(starts[step]), int(starts[step + 1]))
        if adaptation is not None:
            _put(served, adaptation.apply(part(forecast, rows), matrix.x[rows]), rows)
        group = [_resolved(bundle, matrix, i) for i in range(rows.start, rows.stop)]
        began, worked = time.perf_counter(), time.thread_time()
        snapshots = adapter.update(group, matrix.x[rows])  # with the bundle's own forecast, as in the loop
        processor.append((time.thread_time() - worked) / len(group))
        seconds.append((time.perf_counter() - began) / len(group))
        for snapshot in snapshots:
            changes += 1
            adaptation = Adaptation.parse(snapshot.content) if snapshot.kind == "snapshot" else None
            for target in snapshot.content.get("targets", {}):
                applied = adapter.summary()[target]["phase"] == "applied"
                first[target] = step if first[target] is None and applied else first[target]
    unit = {
        name: 0.5 * (getattr(forecast, f"{name}_high") - getattr(forecast, f"{name}_low")) for name in ("ret", "range")
    }
    measured = [_measures(one, matrix, unit, float(bundle.ensemble.spec["coverage"])) for one in (forecast, served)]
    return Watched(measured[0], measured[1], first, changes, np.array(seconds), np.array(processor))


def _put(into: Forecast, rows_forecast: Forecast, rows: slice) -> None:
    for name in ("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high"):
        getattr(into, name)[rows] = getattr(rows_forecast, name)


def _resolved(bundle: Bundle, matrix: Matrix, i: int) -> Resolved:
    at, end = (_moment(times[i]) for times in (matrix.timestamp, matrix.label_end))
    nothing: dict[str, Any] = dict.fromkeys(
        ("parent", "p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high", "side", "edge", "latency")
    )
    logged = Logged(
        id=str(i),
        symbol=str(matrix.symbol[i]),
        model=bundle.hash,
        arm="champion",
        answered=True,
        asked_at=at,
        feature_time=at,
        clock="virtual",
        verdict="trade",
        adaptation=None,
        **nothing,
    )
    direction, ret, spread = (float(matrix.y[target][i]) for target in TARGETS)
    return Resolved(logged, Outcome(i + 1, str(i), "resolved", None, end, direction, ret, spread, "normal", 0, end))


def _moment(value: np.datetime64) -> datetime:
    moment: datetime = value.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)


def _measures(f: Forecast, matrix: Matrix, unit: dict[str, np.ndarray], coverage: float) -> dict[str, np.ndarray]:
    up, ret, spread = (matrix.y[target] for target in TARGETS)
    p = np.where(up > 0.5, f.p_up, 1.0 - f.p_up)

    def score(label: np.ndarray, low: np.ndarray, high: np.ndarray, half: np.ndarray) -> np.ndarray:
        missed = np.maximum(np.maximum(low - label, label - high), 0.0)
        return np.asarray(100.0 * (high - low + 2.0 / (1.0 - coverage) * missed) / (2.0 * half))

    return {
        "log_loss": -np.log(p),
        "range_error": (spread - f.range) ** 2,
        "return_missed": ((ret < f.ret_low) | (ret > f.ret_high)).astype(float),
        "range_missed": ((spread < f.range_low) | (spread > f.range_high)).astype(float),
        "return_score": score(ret, f.ret_low, f.ret_high, unit["ret"]),
        "range_score": score(spread, f.range_low, f.range_high, unit["range"]),
    }


def one_seed(seed: int, *, params: Params, bars: int, config: Adapt, shapes: Sequence[str]) -> dict[str, Any]:
    """Train once, then watch the same model through every shape of drift."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changed = _market(params, seed, bars, None)
        calm = _world(changed)
        series = next(iter(calm.bars.values()))
        cut, drift = series.timestamp[TRAIN - 1], series.timestamp[TRAIN + BEFORE - 1]
        trained = train_bundle(
            calm.known(cut), calm.bars, changed, models=("random_forest", "xgboost"), folder=folder, champion=None
        )
        found = {}
        for shape in shapes:
            drifting = shape not in ("none", "overconfident")
            world = _world(_market(params, seed, bars, shape)) if drifting else calm
            matrix = take(world.matrix, world.matrix.timestamp > cut)
            bundle = _overconfident(trained.bundle) if shape == "overconfident" else trained.bundle
            watched = watch(bundle, matrix, config)
            after = matrix.timestamp >= drift if drifting else slice(None)
            found[shape] = {
                "packaged": {key: float(values[after].mean()) for key, values in watched.packaged.items()},
                "adapted": {key: float(values[after].mean()) for key, values in watched.adapted.items()},
                "first_applied": watched.first_applied,
                "changes": watched.changes,
            }
            if shape == "none":
                found[shape] |= {"seconds": watched.seconds.tolist(), "processor": watched.processor.tolist()}
        return found


def _market(params: Params, seed: int, bars: int, shape: str | None) -> Params:
    drift = {"drift": shape, "drift_bar": TRAIN + BEFORE} if shape else {}
    planted = params.markets["synthetic"].synthetic.model_copy(update={"bars": TRAIN + bars, **drift})
    market = params.markets["synthetic"].model_copy(update={"synthetic": planted})
    return params.model_copy(
        update={"market": "synthetic", "seed": seed, "markets": {**params.markets, "synthetic": market}}
    )


def _world(params: Params) -> World:
    return build_world(params, root=Path.cwd())


def _overconfident(bundle: Bundle) -> Bundle:
    spec = deepcopy(dict(bundle.ensemble.spec))
    spec["targets"]["direction"]["calibrator"] = {"kind": "platt", "slope": 2.0, "intercept": 0.0}
    return replace(bundle, ensemble=Ensemble(spec, bundle.ensemble._sessions))


def real(layout: Layout, params: Params, config: Adapt) -> dict[str, Any]:
    """Watch the packaged bundle through the holdout that it was judged on."""
    bundle = Bundle.open(verify(layout.models / "bundle"))
    holdout = open_holdout(layout, params)
    rows = holdout.row
    sample = holdout.sample
    y = {target: sample.y[target][rows] for target in TARGETS}
    matrix = Matrix(
        holdout.schema, holdout.x[rows], y, sample.symbol[rows], sample.timestamp[rows], sample.label_end[rows]
    )
    watched = watch(bundle, matrix, config)
    _, at = np.unique(matrix.timestamp, return_inverse=True)
    count = np.bincount(at)
    index = stationary_index(len(count), block=20, count=2000, seed=0)
    found: dict[str, Any] = {"rows": len(rows), "first_applied": watched.first_applied, "changes": watched.changes}
    for key in MEASURES:
        total = np.bincount(at, watched.adapted[key] - watched.packaged[key])
        drawn = total[index].sum(axis=1) / count[index].sum(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        found[key] = {
            "packaged": float(watched.packaged[key].mean()),
            "adapted": float(watched.adapted[key].mean()),
            "difference": [float(total.sum() / count.sum()), float(low), float(high)],
        }
    found |= {"seconds": _percentiles(watched.seconds), "processor": _percentiles(watched.processor)}
    return found


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    kept = seconds[100:]  # the first outcomes only warm up
    return {"p50": float(np.quantile(kept, 0.5)), "p99": float(np.quantile(kept, 0.99)), "worst": float(kept.max())}


def summary(seeds: list[dict[str, Any]], shapes: Sequence[str]) -> dict[str, Any]:
    """Return, by shape and measure, both means and the difference with its interval."""
    found: dict[str, Any] = {}
    for shape in shapes:
        found[shape] = {}
        for key in MEASURES:
            packaged, adapted = (
                np.array([seed[shape][kind][key] for seed in seeds]) for kind in ("packaged", "adapted")
            )
            apart = adapted - packaged
            half = (
                stats.t.ppf(0.975, max(len(apart) - 1, 1)) * apart.std(ddof=1) / np.sqrt(len(apart))
                if len(apart) > 1
                else np.nan
            )
            mean = float(apart.mean())
            found[shape][key] = {
                "packaged": float(packaged.mean()),
                "adapted": float(adapted.mean()),
                "difference": [mean, mean - float(half), mean + float(half)],
            }
        applied = {target: [seed[shape]["first_applied"][target] for seed in seeds] for target in TARGETS}
        found[shape]["applied"] = {target: sum(at is not None for at in when) for target, when in applied.items()}
        found[shape]["first_applied"] = {
            target: float(np.median([at for at in when if at is not None]))
            if any(at is not None for at in when)
            else None
            for target, when in applied.items()
        }
    for clock in CLOCKS:
        found[clock] = _percentiles(np.concatenate([seed["none"][clock][100:] for seed in seeds]))
    return found


def parameters() -> Params:
    """Return params.yaml with less work in each training."""
    params = load_params(Layout.current().params)
    return params.model_copy(
        update={
            "split": params.split.model_copy(update={"folds": 3}),
            "train": params.train.model_copy(
                update={"random_forest": params.train.random_forest.model_copy(update={"n_estimators": 40})}
            ),
            "evaluate": params.evaluate.model_copy(update={"bootstrap": 100}),
        }
    )


def run(seeds: int, bars: int, workers: int, config: Adapt, shapes: Sequence[str] = SHAPES) -> dict[str, Any]:
    """Measure everything."""
    layout = Layout.current()
    params = load_params(layout.params)
    work = partial(one_seed, params=parameters(), bars=bars, config=config, shapes=shapes)
    with ProcessPoolExecutor(workers) as pool:
        done = list(tqdm(pool.map(work, range(seeds)), total=seeds, unit="seed", file=sys.stderr))
    result: dict[str, Any] = {"seeds": seeds, "bars": bars, "synthetic": summary(done, shapes)}
    if (layout.models / "bundle" / "reference.json").exists():
        result["real"] = {params.market: real(layout, params, config)}
    return result


def show(result: dict[str, Any]) -> None:
    """Print tables."""
    console = Console(width=160)
    synthetic = result["synthetic"]
    blocks = {shape: synthetic[shape] for shape in synthetic if shape not in CLOCKS} | result.get("real", {})
    for name, block in blocks.items():
        table = Table("", "packaged", "adapted", "difference", "95%", title=name, title_justify="left")
        for key in MEASURES:
            mean, low, high = block[key]["difference"]
            numbers = (block[key]["packaged"], block[key]["adapted"])
            table.add_row(LABELS[key], *(f"{n:.4f}" for n in numbers), f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}")
        console.print(table)
        console.print(f"applied in {block.get('applied')} seeds, first after {block['first_applied']} bars\n")
    for name, block in (("synthetic", synthetic), *result.get("real", {}).items()):
        for clock in CLOCKS:
            shown = ", ".join(f"{key} {value * 1e3:.2f} ms" for key, value in block[clock].items())
            console.print(f"one outcome on {name}, {clock}: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--bars", type=int, default=2500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values of params.yaml's adapt block"
    )
    arguments = parser.parse_args()
    changes = {key: json.loads(value) for key, value in (text.split("=") for text in arguments.set)}
    config = Adapt.model_validate(
        {**load_params(Layout.current().params).adapt.model_dump(), "enabled": True, **changes}
    )
    result = run(arguments.seeds, arguments.bars, arguments.workers, config)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
