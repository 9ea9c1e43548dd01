"""The learning curve: how much of a planted edge the whole loop finds, by the number of training rows.

    python -m benchmarks.learning_curve [--json] [--sizes 2000 8000 20000 60000] [--markets 1] [--regimes]

On the synthetic market with a Bayes-optimal accuracy of 60% the loop learns the direction as the pipeline does: the
features and default hyperparameters of params.yaml, walk-forward folds, stack, calibration, final fit. It then calls
20,000 later bars that no part of it has seen. Every size ends at the same bar, so all are tested on the same rows.

*accuracy* is what the labels say, with its standard error. *edge reached* is (accuracy − ½) / (optimum − ½), with both
accuracies taken in expectation under the oracle's probabilities, so that the luck of 20,000 draws is out of it; its 95%
interval is a paired bootstrap over the test rows. With all labels shuffled, those of the test rows too, the accuracy
must be chance (shuffling the training labels alone would not do: a forecast of noise still leans one way on the one
feature that matters, which shows as an accuracy a little off chance on either side).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tradeloop.bars import Bars, Floats, to_times
from tradeloop.config import MODELS, TARGETS, Params, load_params
from tradeloop.dataset import Matrix
from tradeloop.ensemble import calibrate, combine
from tradeloop.features import compute, schema_for
from tradeloop.labels import compute_labels
from tradeloop.metrics import METRICS
from tradeloop.metrics.bootstrap import stationary_index
from tradeloop.sources.synthetic import Synthetic
from tradeloop.splits import holdout_split, walk_forward
from tradeloop.stacking import fit_calibrator, fit_weights
from tradeloop.training import fit, out_of_fold

ROOT = Path(__file__).resolve().parents[1]
TEST = 20_000
WARM_UP = 1_000
RESAMPLES = 1_000


@dataclass(frozen=True)
class Market:
    """A synthetic market as a training matrix, and the probability of up that its oracle knows, row by row."""

    matrix: Matrix
    p_up: Floats


def parameters(rows: int, *, regimes: bool) -> Params:
    """Return params.yaml's parameters on a synthetic market that is long enough."""
    params = load_params(ROOT / "params.yaml")
    market = params.markets["synthetic"]
    planted = market.synthetic.model_copy(update={"bars": rows + WARM_UP, "regimes": regimes})
    synthetic = market.model_copy(update={"synthetic": planted})
    return params.model_copy(update={"market": "synthetic", "markets": {"synthetic": synthetic}})


def make_market(params: Params, seed: int) -> Market:
    """Return the rows of one synthetic market, in time order."""
    source = Synthetic(params.active, root=ROOT, seed=seed)
    symbol = params.active.symbols[0]
    bars = Bars.from_frame(symbol, source.read(symbol))
    schema, labels = schema_for(params), compute_labels(bars, params.labels)
    x = compute(bars, schema)
    whole = np.isfinite(x).all(axis=1) & labels[list(TARGETS)].notna().all(axis=1).to_numpy()
    matrix = Matrix(
        schema,
        np.ascontiguousarray(x[whole]),
        {target: labels[target].to_numpy(dtype=np.float64)[whole] for target in TARGETS},
        np.full(int(whole.sum()), symbol, dtype=object),
        bars.timestamp[whole],
        to_times(labels["label_end"])[whole],
    )
    return Market(matrix, source.oracle(symbol).p_up[whole])


def learn(matrix: Matrix, rows: slice, params: Params, bar: Any) -> dict[str, Floats]:
    """Learn direction on `rows`; return every model's and the stack's forecast of the last `TEST` rows.

    The splitter's holdout lies behind the training rows and is not looked at: the test rows begin where it does.
    """
    part = Matrix(
        matrix.schema,
        matrix.x[rows],
        {target: values[rows] for target, values in matrix.y.items()},
        matrix.symbol[rows],
        matrix.timestamp[rows],
        matrix.label_end[rows],
    )
    folds = walk_forward(part.timestamp, part.label_end, params.split)
    holdout = holdout_split(part.timestamp, part.label_end, params.split)
    tested = np.concatenate([fold.test for fold in folds])
    label = part.y["direction"][tested]
    members: dict[str, Floats] = {}
    forecasts: dict[str, Floats] = {}
    for name in MODELS:
        hyper = getattr(params.train, name)
        kept = []
        for values in out_of_fold(name, part, "direction", folds, hyper=hyper, params=params):
            kept.append(values)
            bar.update()
        members[name] = np.concatenate(kept)
        final = fit(name, part, "direction", holdout.train, hyper=hyper, params=params)
        forecasts[name] = final.predict(matrix.x[-TEST:])
        bar.update()
    spec = fit_weights("logit", members, label, l2=params.stack.l2)
    calibrator = fit_calibrator(params.stack.calibration, combine(spec, members), label, bars=len(label))
    forecasts["stack"] = calibrate(calibrator, combine(spec, forecasts))
    return forecasts


def shuffled(matrix: Matrix, seed: int) -> Matrix:
    """Return the matrix with labels drawn from other rows."""
    rng = np.random.default_rng(seed)
    return replace(matrix, y={target: rng.permutation(values) for target, values in matrix.y.items()})


def edge(called: NDArray[np.bool_], p_up: Floats, index: NDArray[np.int32] | slice) -> Any:
    """Return (accuracy − ½) / (optimum − ½) in expectation, for each resample."""
    gained = np.where(called, p_up, 1.0 - p_up) - 0.5
    return gained[index].mean(axis=-1) / np.abs(p_up - 0.5)[index].mean(axis=-1)


def summarise(size: int, name: str, runs: list[tuple[Floats, Floats, Floats]]) -> dict[str, Any]:
    """Score one model's forecasts, pooled over the markets; each run is (forecast, label, oracle)."""
    forecast, label, p_up = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    called = forecast >= 0.5
    index = stationary_index(len(label), block=1, count=RESAMPLES, seed=0)
    low, high = np.percentile(edge(called, p_up, index), [2.5, 97.5])
    reached = {"edge_reached": float(edge(called, p_up, slice(None))), "edge_low": float(low), "edge_high": float(high)}
    return {
        "rows": abs(size),
        "labels": "true" if size > 0 else "shuffled",
        "model": name,
        "accuracy": METRICS["accuracy"](label, forecast),
        "standard_error": float(0.5 / np.sqrt(len(label))),
        "optimum_on_these_rows": float((0.5 + np.abs(p_up - 0.5)).mean()),
        "auc": METRICS["auc"](label, forecast),
        "log_loss": METRICS["log_loss"](label, forecast),
    } | (reached if size > 0 else {})


def run(sizes: list[int], markets: int, *, regimes: bool) -> list[dict[str, Any]]:
    """Learn every size on every market, and the largest with shuffled labels too."""
    params = parameters(max(sizes) + TEST, regimes=regimes)
    # The holdout share of the rows handed over must lie within the test rows.
    share = params.split.holdout / (1.0 - params.split.holdout)
    fits = markets * (len(sizes) + 1) * len(MODELS) * (params.split.folds + 1)
    results: dict[tuple[int, str], list[tuple[Floats, Floats, Floats]]] = {}
    with tqdm(total=fits, desc="learning curve", unit="fit") as bar:
        for seed in range(markets):
            market = make_market(params, seed)
            first = len(market.matrix) - TEST
            for size in (*sizes, -max(sizes)):
                rows = slice(first - abs(size), first + round(abs(size) * share))
                matrix = market.matrix if size > 0 else shuffled(market.matrix, seed)
                for name, forecast in learn(matrix, rows, params, bar).items():
                    label = matrix.y["direction"][-TEST:]
                    results.setdefault((size, name), []).append((forecast, label, market.p_up[-TEST:]))
    return [summarise(size, name, runs) for (size, name), runs in results.items()]


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 8_000, 20_000, 60_000])
    parser.add_argument("--markets", type=int, default=1, help="how many independent markets to average over")
    parser.add_argument("--regimes", action="store_true", help="a market whose sign turns with its volatility")
    arguments = parser.parse_args()
    results = run(arguments.sizes, arguments.markets, regimes=arguments.regimes)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    table = Table("training rows", "model", "accuracy", "edge reached", "95% interval", "AUC", "log loss")
    for r in results:
        table.add_row(
            f"{r['rows']:,}" if r["labels"] == "true" else f"{r['rows']:,} shuffled",
            r["model"],
            f"{r['accuracy']:.4f} ± {r['standard_error']:.4f}",
            f"{r['edge_reached']:.1%}" if "edge_reached" in r else "",
            f"{r['edge_low']:.1%} … {r['edge_high']:.1%}" if "edge_low" in r else "",
            f"{r['auc']:.4f}",
            f"{r['log_loss']:.5f}",
            end_section=r["model"] == "stack",
        )
    Console(width=110).print(table)
    print(f"optimum on these rows: {results[0]['optimum_on_these_rows']:.4f}")


if __name__ == "__main__":
    main()
