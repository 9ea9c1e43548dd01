"""Measuring the reference on the holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats, Times
from tradeloop.ensemble import logit, sigmoid
from tradeloop.errors import BundleError
from tradeloop.reference.content import (
    FORMAT,
    POINTS,
    Reference,
    alignment_covariate,
    normal_score_limit,
    score_grid,
)
from tradeloop.reference.estimates import (
    autoregression,
    clustered_effect,
    correlation,
    fit_line,
    lagged,
    likelihood,
)
from tradeloop.reference.ranks import design_effect, rank_map, rank_scores

if TYPE_CHECKING:
    import pandas as pd

    from tradeloop.dataset import Matrix
    from tradeloop.splits import Rows

RECENT = 1_000
FORECASTS = ("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What the size of a return may weigh in its covariate."""

Json = dict[str, Any]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class _Rows:
    """The holdout by time, then symbol: positions in the matrix, number of time and symbol, forecasts, labels."""

    row: Index
    time: Index
    symbol: Index
    overlap: int
    forecast: Mapping[str, Floats]
    label: Mapping[str, Floats]

    @property
    def times(self) -> int:
        return int(self.time[-1]) + 1

    @property
    def symbols(self) -> int:
        return int(self.symbol.max()) + 1


def build_reference(
    holdout: pd.DataFrame, matrix: Matrix, *, train: Rows, coverage: float, recent: int = RECENT
) -> Json:
    """Return the content of ``reference.json``; the same input gives the same content.

    Parameters
    ----------
    holdout
        ``row`` (position in `matrix`) and `FORECASTS` (range in logs) of every holdout row, as evaluate wrote them.
    train
        Positions of the rows that trained.
    coverage
        Nominal coverage of the intervals.
    recent
        How many of the matrix's newest rows stand for the market as it was when the model was made.

    Raises
    ------
    BundleError
        No holdout rows, or a forecast that is not finite.
    """
    rows = _read(holdout, matrix)
    trained = np.unique(matrix.timestamp[train], return_inverse=True)[1]
    content = {
        "format": FORMAT,
        "rows": len(rows.row),
        "times": rows.times,
        "symbols": rows.symbols,
        "train_rows": len(train),
        "overlap": rows.overlap,
        "coverage": coverage,
        "direction": _direction(rows),
        "ret": _return(rows),
        "range": _range(rows),
        "features": {
            "names": list(matrix.schema.names),
            "train": [ranked_sketch(column, trained) for column in matrix.x[train].T],
            "recent": [sketch(column) for column in matrix.x[-recent:].T],
        },
        "forecasts": {name: ranked_sketch(rows.forecast[name], rows.time) for name in ("p_up", "ret", "range")},
    }
    return Reference.parse(_rounded(content)).model_dump(mode="json")


def sketch(values: NDArray[Any]) -> Json:
    """Return the JSON of a `Sketch` of `values` (n,)."""
    exact = values.astype(np.float64)
    quantiles = np.quantile(exact, np.linspace(0.0, 1.0, POINTS))
    _, counts = np.unique(exact, return_counts=True)
    return {
        # Interpolation may lower a quantile by a unit in the last place among equal values.
        "quantiles": np.maximum.accumulate(quantiles).tolist(),
        "mean": float(exact.mean()),
        "sd": float(exact.std()),
        "ties": float(counts.max() / len(exact)),
    }


def ranked_sketch(values: NDArray[Any], time: Index) -> Json:
    """Return the same with the rank scores of `values` (n,), whose times are numbered (n,) from 0 without gaps."""
    made = sketch(values)
    scores = rank_scores(values.astype(np.float32), rank_map(np.array(made["quantiles"])))
    for name, score in zip(("level", "spread"), scores, strict=True):
        made[name] = {"mean": float(score.mean()), "sd": float(score.std()), "effect": design_effect(score, time)}
    return made


def _read(holdout: pd.DataFrame, matrix: Matrix) -> _Rows:
    row = holdout["row"].to_numpy(dtype=np.intp)
    if not len(row):
        raise BundleError("the holdout has no rows: a bundle needs some to say what skill is to be expected")
    _, symbol = np.unique(matrix.symbol[row].astype(str), return_inverse=True)
    order = np.lexsort((symbol, matrix.timestamp[row]))
    row, symbol = row[order], symbol[order]
    times, time = np.unique(matrix.timestamp[row], return_inverse=True)
    forecast = {name: holdout[name].to_numpy(dtype=np.float64)[order] for name in FORECASTS}
    for name, values in forecast.items():
        if not np.isfinite(values).all():
            raise BundleError(f"the holdout's {name} must be finite")
    label: dict[str, Floats] = {target: values[row] for target, values in matrix.y.items()}
    return _Rows(row, time, symbol, _overlap(times, matrix.timestamp[row], matrix.label_end[row]), forecast, label)


def _overlap(times: Times, at: Times, label_end: Times) -> int:
    """Return how many later rows of a symbol begin before a row's label has ended, in the median."""
    between = np.searchsorted(times, label_end, side="left") - np.searchsorted(times, at, side="left") - 1
    return max(int(np.median(between)), 0)


def _direction(rows: _Rows) -> Json:
    y, p = rows.label["direction"], rows.forecast["p_up"]
    kept = np.clip(p, 1e-6, 1 - 1e-6)
    loss = -(y * np.log(kept) + (1 - y) * np.log1p(-kept))
    return _sharpness(logit(p), y, rows) | {
        "base_rate": float(y.mean()),
        "accuracy": _mean(((p >= 0.5) == (y > 0.5)).astype(np.float64), rows),
        "loss": _mean(loss, rows),
        "loss_sd": float(loss.std()),
    }


def _return(rows: _Rows) -> Json:
    actual, ret = rows.label["return"], rows.forecast["ret"]
    volatility = np.exp(rows.forecast["range"])
    residual = (actual - ret) / volatility
    moved = actual != 0  # nothing is at stake, and the sign says nothing, where the price did not move
    up = (actual[moved] > 0).astype(np.float64)

    def covariate(share: float) -> Floats:
        return alignment_covariate(ret[moved], volatility[moved], actual[moved], share)

    share = max(SHARES, key=lambda share: likelihood(fit_line(covariate(share), up)[0], covariate(share), up))
    inside = (rows.forecast["ret_low"] <= actual) & (actual <= rows.forecast["ret_high"])
    return _sharpness(covariate(share), up, rows, moved) | {
        "size_share": share,
        "residual": sketch(residual),
        "alignment": sketch(ret * actual / volatility**2),
        "coverage": _mean(inside.astype(np.float64), rows),
        "loss": _mean(residual**2, rows),
        "loss_sd": float((residual**2).std()),
    }


def _range(rows: _Rows) -> Json:
    residual = rows.label["range"] - rows.forecast["range"]
    mean = _mean(residual, rows, serial=True)
    columns = lagged(residual - mean["value"], rows.symbol)
    memory = autoregression(columns)
    innovation = columns[:, 0] - columns[:, 1 : len(memory) + 1] @ memory
    limit = normal_score_limit(len(innovation))
    probabilities = [NormalDist().cdf(value) for value in score_grid(limit)]
    scores = np.maximum.accumulate(np.quantile(innovation, probabilities))
    score = np.interp(innovation, scores, score_grid(limit))
    inside = (rows.forecast["range_low"] <= rows.label["range"]) & (rows.label["range"] <= rows.forecast["range_high"])
    lags = _bandwidth(rows)
    return {
        "residual": sketch(residual),
        "mean": mean,
        "memory": memory.tolist(),
        "innovation_sd": float(innovation.std()),
        "scores": scores.tolist(),
        "limit": limit,
        "correlation": correlation(score, rows.time),
        "symbol_effect": clustered_effect(score - score.mean(), rows.time, rows.overlap),
        "location_effect": clustered_effect(score - score.mean(), rows.time, lags, tapered=True),
        "scale_effect": clustered_effect(score**2 - (score**2).mean(), rows.time, lags, tapered=True),
        "coverage": _mean(inside.astype(np.float64), rows),
        "loss": _mean(residual**2, rows, serial=True),
        "loss_sd": float((residual**2).std()),
    }


def _sharpness(x: Floats, y: Floats, rows: _Rows, kept: NDArray[np.bool_] | None = None) -> Json:
    """Return the JSON of a `Sharpness`: logistic regression of y (n,) on x (n,), errors that know the design effect."""
    time = rows.time if kept is None else rows.time[kept]
    found, inverse = fit_line(x, y)
    p = sigmoid(found[0] + found[1] * x)
    centred = x - np.average(x, weights=p * (1 - p)) if len(x) else x
    effect = clustered_effect(centred * (y - p), time, rows.overlap)
    level = clustered_effect(y - p, time, rows.overlap)
    return {
        "intercept": {"value": float(found[0]), "se": float(np.sqrt(inverse[0, 0] * level))},
        "slope": {"value": float(found[1]), "se": float(np.sqrt(inverse[1, 1] * effect))},
        "correlation": correlation(centred * (y - p), time),
        "design_effect": effect,
    }


def _mean(values: Floats, rows: _Rows, *, serial: bool = False) -> Json:
    """Return mean and standard error; `serial` values depend on each other over time beyond what labels share."""
    lags = _bandwidth(rows) if serial else rows.overlap
    effect = clustered_effect(values - values.mean(), rows.time, lags, tapered=serial)
    return {"value": float(values.mean()), "se": float(np.sqrt(values.var() * effect / len(values)))}


def _bandwidth(rows: _Rows) -> int:
    """Return over how many times dependence is looked for: twice the cube root of them, and what labels share."""
    return 2 * int(np.cbrt(rows.times)) + rows.overlap


def _rounded(content: Any) -> Any:
    """Return `content` with its floats at nine significant digits: a float32 comes back exactly, on any machine."""
    if isinstance(content, Mapping):
        return {str(key): _rounded(part) for key, part in content.items()}
    if isinstance(content, list):
        return [_rounded(part) for part in content]
    return float(f"{content:.9g}") if isinstance(content, float) else content
