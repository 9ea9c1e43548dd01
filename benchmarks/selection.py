"""What choosing columns changes, out of fold, and how often a search finds something in noise.

    python -m benchmarks.selection compare --models xgboost mlp
    python -m benchmarks.selection noise --seeds 40 --trials 500

Both read the training matrix of the project that ``$TRADELOOP_HOME`` names (after ``dvc repro split``); the holdout is
never looked at. ``compare`` prints, for each model and target, the skill with all columns and the difference with
the chosen ones. ``noise`` deals the labels anew to whole timestamps, or turns them round in time, which leaves every
series as it was but takes away what ties labels to features, and counts the searches that confirm anything.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from tradeloop.compute.features import read_bars
from tradeloop.config import TARGETS, Params, Target, load_params
from tradeloop.dataset import Matrix, load_matrix
from tradeloop.features.engine import specs_for
from tradeloop.layout import Layout
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.metrics.primary import SKILL
from tradeloop.robustness import permute_timestamps
from tradeloop.selection import EVERY, Chosen, choose_all
from tradeloop.selection.choice import Choice
from tradeloop.selection.chosen import Choices
from tradeloop.selection.discovery import search
from tradeloop.selection.report import compare
from tradeloop.selection.stability import stability
from tradeloop.splits import Fold, Rows, read_splits
from tradeloop.training import out_of_fold

DROPS = (0.0, 0.3, 0.6)


def best(choice: Choice, drop: float) -> Rows:
    """Return what the choice would keep had it dropped this share: ranks do not depend on it."""
    ranked = int(np.isfinite(choice.rank).sum())
    return np.sort(np.argsort(choice.rank, kind="stable")[: max(1, math.ceil((1 - drop) * ranked))])


def cut(choices: Choices, drop: float) -> Chosen:
    return Chosen({t: {number: best(one, drop) for number, one in folds.items()} for t, folds in choices.items()})


def show(choices: Choices, width: int) -> None:
    for drop in DROPS:
        for target, by_fold in cut(choices, drop).columns.items():
            found = stability(np.array([np.isin(np.arange(width), kept) for kept in by_fold.values()]))
            sizes = [len(kept) for kept in by_fold.values()]
            print(
                f"  drop {drop:.2f} {target:9}: {min(sizes)}–{max(sizes)} of {width} columns, stability "
                f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            )


def forecasts(
    name: str, matrix: Matrix, target: Target, folds: list[Fold], params: Params, chosen: Chosen
) -> np.ndarray:
    hyper = getattr(params.train, name)
    return np.concatenate(list(out_of_fold(name, matrix, target, folds, hyper=hyper, params=params, chosen=chosen)))


def before_and_after(layout: Layout, params: Params, models: list[str]) -> None:
    matrix, (folds, _) = load_matrix(layout), read_splits(layout)
    ranked = params.model_copy(update={"selection": params.selection.model_copy(update={"method": "ranked"})})
    began = time.process_time()
    choices = choose_all(matrix, folds, params=ranked)
    print(
        f"{len(matrix)} rows, {len(folds)} folds; choosing took {time.process_time() - began:.0f} s of processor time"
    )
    show(choices, len(matrix.schema))
    rows = np.concatenate([fold.test for fold in folds])
    evaluate = params.evaluate
    bootstrap = Bootstrap(
        matrix.timestamp[rows], block=evaluate.block, count=evaluate.bootstrap, confidence=0.95, seed=params.seed
    )
    for name in models:
        for target in TARGETS:
            before = forecasts(name, matrix, target, folds, params, EVERY)
            for drop in DROPS:
                after = forecasts(name, matrix, target, folds, params, cut(choices, drop))
                found = compare(target, matrix.y[target][rows], before, after, bootstrap=bootstrap)
                gap, saved = found["difference"], found["loss_saved"]
                print(
                    f"{name:13} {target:9} drop {drop:.2f}: {SKILL[target]} {found['before']['value']:.4f} → "
                    f"{found['after']['value']:.4f}, difference {gap['value']:+.4f} [{gap['low']:+.4f}, "
                    f"{gap['high']:+.4f}]; loss saved {100 * saved['value']:+.2f}% [{100 * saved['low']:+.2f}, "
                    f"{100 * saved['high']:+.2f}]",
                    flush=True,
                )


def turned(matrix: Matrix, target: Target, rows: Rows, seed: int) -> np.ndarray:
    """Return the labels of the rows moved on by a random number of bars, the last ones to the front."""
    label = matrix.y[target].copy()
    shift = int(np.random.default_rng(seed).integers(len(rows) // 4, 3 * len(rows) // 4))
    label[rows] = np.roll(label[rows], shift)
    return label


def noise(layout: Layout, params: Params, *, seeds: int, trials: int) -> None:
    matrix, (folds, _) = load_matrix(layout), read_splits(layout)
    bars = {symbol: read_bars(layout, params, symbol) for symbol in params.active.symbols}
    config = params.discovery.model_copy(update={"trials": trials})
    known, rows = specs_for(params), folds[0].train
    for kind in ("dealt anew", "turned round"):
        for target in TARGETS:
            confirmed, began = 0, time.process_time()
            for seed in range(seeds):
                label = matrix.y[target].copy()
                if kind == "dealt anew":
                    label[rows] = permute_timestamps(matrix.timestamp[rows], label[rows], seed=seed)
                else:
                    label = turned(matrix, target, rows, seed)
                other = Matrix(
                    matrix.schema,
                    matrix.x,
                    matrix.y | {target: label},
                    matrix.symbol,
                    matrix.timestamp,
                    matrix.label_end,
                )
                found = search(other, bars, known, target, rows, config=config, embargo=params.split.embargo, seed=seed)
                confirmed += any(one.confirmed for one in found.shortlist)
            took = (time.process_time() - began) / seeds
            print(
                f"{target:9} labels {kind:12}: {confirmed} of {seeds} searches of {trials} candidates confirm one "
                f"(alpha {config.alpha}); {took:.2f} s each",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("compare", "noise"))
    parser.add_argument("--models", nargs="+", default=["xgboost", "random_forest", "mlp"])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--trials", type=int, default=500)
    options = parser.parse_args()
    layout = Layout.current()
    params = load_params(layout.params)
    if options.what == "compare":
        before_and_after(layout, params, options.models)
    else:
        noise(layout, params, seeds=options.seeds, trials=options.trials)


if __name__ == "__main__":
    main()
