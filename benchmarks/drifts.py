"""What `limits` and `detection` share: synthetic markets that drift, champions that were fitted before, their outcomes.

A champion is the pipeline's own: features and XGBoost hyperparameters of params.yaml, walk-forward folds, stack,
calibration, conformal intervals, ONNX graphs; its reference is measured on its holdout. It then answers markets of
other seeds that it has never seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tradeloop.bars import Bars, Floats, to_times
from tradeloop.config import TARGETS, Params, Target, load_params
from tradeloop.dataset import Matrix
from tradeloop.ensemble import Ensemble, Forecast
from tradeloop.features import compute, schema_for
from tradeloop.labels import compute_labels
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.reference import Reference, build_reference
from tradeloop.sources.synthetic import Synthetic
from tradeloop.splits import Rows, holdout_split, walk_forward
from tradeloop.stacking import OutOfFold, fit_stack
from tradeloop.training import fit, out_of_fold

ROOT = Path(__file__).resolve().parents[1]
FORECASTS = ("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high")
WARM_UP = 300  # bars before the first with all features
MODEL = "xgboost"

Shape = Literal["sign_flip", "fading_edge", "new_regime", "volatility_jump"]
SHAPES: tuple[Shape, ...] = ("sign_flip", "fading_edge", "new_regime", "volatility_jump")


@dataclass(frozen=True)
class Champion:
    """A model that was fitted on a market without drift.

    Attributes
    ----------
    ensemble
        What answers.
    reference
        Measured on its holdout, `bars` times the share that params.yaml holds out.
    """

    accuracy: float
    ensemble: Ensemble
    reference: Reference

    def reference_on(self, matrix: Matrix, rows: Rows) -> Reference:
        """Return the reference that other rows than the holdout's give."""
        forecast = self.ensemble.forecast(matrix.x[rows])
        return measure(self.ensemble, forecast, matrix, rows)


@dataclass(frozen=True)
class Market:
    """A market's rows with all features and labels, and the oracle's probability of up for each."""

    matrix: Matrix
    p_up: Floats
    drift: int

    def __len__(self) -> int:
        return len(self.matrix.x)


def make_params(accuracy: float, bars: int, *, shape: Shape | None = None, drift_bar: int | None = None) -> Params:
    """Return params.yaml's parameters on a synthetic market of so many usable bars."""
    params = load_params(ROOT / "params.yaml")
    market = params.markets["synthetic"]
    change: dict[str, Any] = {"bars": bars + WARM_UP, "bayes_accuracy": accuracy, "drift_bar": drift_bar}
    planted = market.synthetic.model_copy(update=change | ({"drift": shape} if shape else {}))
    synthetic = market.model_copy(update={"synthetic": planted})
    return params.model_copy(update={"market": "synthetic", "markets": {"synthetic": synthetic}})


def make_market(params: Params, seed: int) -> Market:
    """Return one market's rows, in time order; `Market.drift` is the first row whose label the drift has changed."""
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
    drift_bar = params.active.synthetic.drift_bar
    first = len(matrix.x) if drift_bar is None else int((np.flatnonzero(whole) < drift_bar - 1).sum())
    return Market(matrix, source.oracle(symbol).p_up[whole], first)


def fit_champion(accuracy: float, *, bars: int, seed: int) -> Champion:
    """Fit one champion on a market without drift."""
    params = make_params(accuracy, bars)
    matrix = make_market(params, seed).matrix
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    last = holdout_split(matrix.timestamp, matrix.label_end, params.split)
    hyper = getattr(params.train, MODEL)
    graphs: dict[str, bytes] = {}
    forecasts: dict[Target, dict[str, Floats]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            parts = out_of_fold(MODEL, matrix, target, folds, hyper=hyper, params=params)
            forecasts[target] = {MODEL: np.concatenate(list(parts))}
            fit(MODEL, matrix, target, last.train, hyper=hyper, params=params).export(Path(folder))
            graphs[f"{MODEL}/{target}.onnx"] = (Path(folder) / f"{target}.onnx").read_bytes()
    numbers = np.concatenate([np.full(len(fold.test), fold.number) for fold in folds])
    oof = OutOfFold(np.concatenate([fold.test for fold in folds]), numbers, forecasts)
    ensemble = Ensemble.load(graphs, fit_stack(matrix, oof, folds, last, config=params.stack).spec)
    forecast = ensemble.forecast(matrix.x[last.test])
    return Champion(accuracy, ensemble, measure(ensemble, forecast, matrix, last.test))


def measure(ensemble: Ensemble, forecast: Forecast, matrix: Matrix, rows: Rows) -> Reference:
    """Return the reference of an ensemble that forecast `rows`; sketches of features are not what is asked here."""
    holdout = pd.DataFrame({"row": rows, **{name: getattr(forecast, name) for name in FORECASTS}})
    coverage = float(ensemble.spec["coverage"])
    return Reference.parse(build_reference(holdout, matrix, train=rows, coverage=coverage))


def outcomes(champion: Champion, market: Market, *, start: int = 0) -> Iterator[Resolved]:
    """Yield the champion's predictions of the rows from `start` on with their outcomes, as the resolver does."""
    forecast = champion.ensemble.forecast(market.matrix.x[start:])
    return resolved(forecast, market.matrix, start)


def resolved(forecast: Forecast, matrix: Matrix, start: int) -> Iterator[Resolved]:
    """Yield forecasts of the rows from `start` on, beside their labels."""
    columns = [getattr(forecast, name).tolist() for name in FORECASTS[:4]]
    columns += [np.exp(getattr(forecast, name)).tolist() for name in FORECASTS[4:]]
    labels = [matrix.y[target][start:].tolist() for target in TARGETS]
    times: list[datetime] = matrix.timestamp[start:].tolist()
    ends: list[datetime] = matrix.label_end[start:].tolist()
    rows = zip(times, ends, matrix.symbol[start:].tolist(), *columns, *labels, strict=True)
    for number, (time, end, symbol, p, ret, ret_low, ret_high, wide, low, high, up, move, log_range) in enumerate(rows):
        at, known = time.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
        key = str(number)
        logged = Logged(
            id=key,
            symbol=symbol,
            model="",
            arm="champion",
            answered=True,
            parent=None,
            asked_at=at,
            feature_time=at,
            clock="virtual",
            verdict="trade",
            p_up=p,
            ret=ret,
            ret_low=ret_low,
            ret_high=ret_high,
            range=wide,
            range_low=low,
            range_high=high,
            side="long" if p >= 0.5 else "short",
            edge=0.0,
            latency=1.0,
            adaptation=None,
        )
        yield Resolved(
            logged,
            Outcome(number + 1, key, "resolved", None, known, up, move, log_range, "normal", 0, known),
        )
