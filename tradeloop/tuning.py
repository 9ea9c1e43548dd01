"""Hyperparameter search: a small seeded Optuna study a target, on the newest walk-forward folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from tradeloop.config import TARGETS, Block, Params, Target
from tradeloop.metrics import METRICS
from tradeloop.models import open_model
from tradeloop.selection.chosen import EVERY, Chosen
from tradeloop.splits import Fold
from tradeloop.training import FOLD_METRICS, out_of_fold

if TYPE_CHECKING:
    from tradeloop.dataset import Matrix


@dataclass(frozen=True)
class Study:
    """What a search found.

    Attributes
    ----------
    best
        The hyperparameters with the lowest mean score, all of them.
    trials
        Each trial's moved hyperparameters and its score, in order; the first stands where params.yaml does.
    """

    metric: str
    best: Block
    trials: list[dict[str, Any]]


def search(
    name: str,
    matrix: Matrix,
    target: Target,
    folds: list[Fold],
    *,
    params: Params,
    bar: Any,
    chosen: Chosen = EVERY,
) -> Study:
    """Search the hyperparameters of one model for one target.

    1. Trial 0 is params.yaml's; only the keys listed in ``tune.<model>`` move.
    2. A trial's score is the mean over the newest ``tune.folds`` folds of log loss (direction) or RMSE.
    3. The lowest score wins, the earlier trial on a tie; the same inputs give the same study.

    Parameters
    ----------
    bar
        A progress bar to advance by one per fitted fold.
    chosen
        The columns of each fold.

    Raises
    ------
    ModelError
        If a key cannot be tuned.
    """
    import optuna

    model, base = open_model(name), getattr(params.train, name)
    keys = getattr(params.tune, name)
    metric = FOLD_METRICS[target][0]
    newest = folds[-params.tune.folds :]
    trials: list[tuple[float, Block, dict[str, Any]]] = []

    def objective(trial: Any) -> float:
        hyper = model.search_space(trial, base, keys)
        scores = []
        forecasts = out_of_fold(name, matrix, target, newest, hyper=hyper, params=params, chosen=chosen)
        for fold, forecast in zip(newest, forecasts, strict=True):
            scores.append(METRICS[metric](matrix.y[target][fold.test], forecast))
            bar.update()
        trials.append((float(np.mean(scores)), hyper, {key: getattr(hyper, key) for key in keys}))
        return trials[-1][0]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=params.seed, n_startup_trials=4, n_ei_candidates=24, multivariate=True, group=False, constant_liar=False
    )
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.enqueue_trial(model.start(base, keys))
    study.optimize(objective, n_trials=params.tune.trials if keys else 1)
    best = min(range(len(trials)), key=lambda number: trials[number][0])
    return Study(metric, trials[best][1], [{"score": score, **moved} for score, _, moved in trials])


def tune(
    name: str, matrix: Matrix, folds: list[Fold], *, params: Params, chosen: Chosen = EVERY
) -> dict[Target, Study]:
    """Search for every target, with a progress bar on stderr."""
    each = min(params.tune.folds, len(folds)) * (params.tune.trials if getattr(params.tune, name) else 1)
    with tqdm(total=each * len(TARGETS), desc=f"tune {name}", unit="fit") as bar:
        return {
            target: search(name, matrix, target, folds, params=params, bar=bar, chosen=chosen) for target in TARGETS
        }
