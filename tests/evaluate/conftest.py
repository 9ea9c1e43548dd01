"""A small market with forecastable range, its real features and labels, and a real ensemble: what evaluate opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tradeloop.bars import Bars
from tradeloop.baselines import Sample
from tradeloop.config import TARGETS, Params, Split, XGBoostParams, load_params
from tradeloop.ensemble import Ensemble
from tradeloop.evaluate.holdout import Holdout, bars_per_year
from tradeloop.evaluate.judgement import Judgement, judge
from tradeloop.features import compute, schema_for
from tradeloop.labels import compute_labels
from tradeloop.models import open_model
from tradeloop.splits import holdout_split

ROOT = Path(__file__).resolve().parents[2]
DAY = np.timedelta64(1, "D")
START = np.datetime64("2008-01-01T21:00:00", "us")
MEMBERS = ("xgboost",)


def small_params(**evaluate: Any) -> Params:
    """The project's own parameters on two symbols without context, with fewer resamples."""
    params = load_params(ROOT / "params.yaml")
    market = params.active.model_copy(update={"symbols": ["AAA", "BBB"], "context": []})
    return params.model_copy(
        update={
            "markets": {params.market: market},
            "evaluate": params.evaluate.model_copy(update={"bootstrap": 200, **evaluate}),
        }
    )


def market(symbol: str, *, seed: int, count: int, momentum: float = 0.5) -> Bars:
    """Bars with persistent volatility; a bar goes the way of the one before it with probability `momentum`."""
    rng = np.random.default_rng(seed)
    level = np.zeros(count)
    for t in range(1, count):
        level[t] = 0.97 * level[t - 1] + 0.2 * rng.normal()
    size = np.abs(rng.normal(size=count)) * np.exp(-4.5 + level)
    side = np.ones(count)
    for t in range(1, count):
        side[t] = side[t - 1] * (1 if rng.random() < momentum else -1)
    step = side * size
    close = 50 * np.exp(np.cumsum(step))
    open_ = np.r_[50.0, close[:-1]] * np.exp(0.05 * size * rng.normal(size=count))
    wick = np.exp(np.exp(-4.8 + level) * np.abs(rng.normal(size=(2, count))))
    high, low = np.maximum(open_, close) * wick[0], np.minimum(open_, close) / wick[1]
    return Bars(symbol, START + np.arange(count) * DAY, open_, high, low, close, np.exp(rng.normal(12, 0.4, count)))


def build(folder: Path, params: Params, series: Mapping[str, Bars]) -> Holdout:
    """Fit a small ensemble on the bars' features and labels, export it, and open the holdout with it."""
    schema = schema_for(params)
    parts: list[tuple[Any, ...]] = []
    for name, bars in series.items():
        labels = compute_labels(bars, params.labels)
        x = compute(bars, schema)
        keep = np.isfinite(x).all(axis=1) & labels["label_end"].notna().to_numpy()
        ends = labels["label_end"].dt.tz_localize(None).to_numpy("datetime64[us]")
        columns = (ends, *(labels[target].to_numpy() for target in TARGETS))
        parts.append(
            (np.full(len(bars), name, dtype=object)[keep], bars.timestamp[keep], x[keep], *(c[keep] for c in columns))
        )
    symbol, timestamp, x, ends, *y = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((symbol.astype(str), timestamp))
    symbol, timestamp, x, ends = symbol[order], timestamp[order], x[order], ends[order]
    labels = {target: values[order] for target, values in zip(TARGETS, y, strict=True)}
    split = holdout_split(timestamp, ends, Split(holdout=0.3, embargo=1))
    ensemble = fit_ensemble(folder, params, schema, x=x, labels=labels, train=split.train)
    return Holdout(
        market=params.market,
        schema=schema,
        sample=Sample(symbol, timestamp, ends, labels, split.train, split.test),
        x=x,
        bars=series,
        labels=params.labels,
        ensemble=ensemble,
        forecast=ensemble.forecast(x[split.test]),
        coverage=0.9,
        bars_per_year=bars_per_year(timestamp),
    )


def fit_ensemble(
    folder: Path, params: Params, schema: Any, *, x: np.ndarray, labels: Mapping[Any, np.ndarray], train: np.ndarray
) -> Ensemble:
    hyper = XGBoostParams(n_estimators=40, max_depth=3, learning_rate=0.1, min_child_weight=40, subsample=0.6)
    fitting, calibrating = train[: len(train) * 3 // 4], train[len(train) * 3 // 4 :]
    quantiles = {}
    log_range = np.zeros(len(calibrating))
    for target in reversed(TARGETS):
        for member in MEMBERS:
            model = open_model(member)(target, hyper, seed=1).fit(x[fitting], labels[target][fitting])
            model.export(folder / member)
        residual = labels[target][calibrating] - model.predict(x[calibrating])
        if target == "range":
            log_range = model.predict(x[calibrating])
        scale = np.exp(log_range) if target == "return" else 1.0
        quantiles[target] = np.quantile(residual / scale, [0.05, 0.95]).tolist()
    targets: dict[str, Any] = {
        target: {
            "space": "logit" if target == "direction" else "identity",
            "members": {member: {"file": f"{member}/{target}.onnx", "weight": 1.0} for member in MEMBERS},
            "intercept": 0.0,
        }
        for target in TARGETS
    }
    targets["direction"]["calibrator"] = {"kind": "platt", "slope": 0.5, "intercept": 0.0}
    for target, scale in (("return", "range"), ("range", "none")):
        low, high = quantiles[target]
        targets[target]["conformal"] = {"scale": scale, "low": low, "high": high}
    spec = {
        "format": 1,
        "market": params.market,
        "schema": {"hash": schema.hash, "names": list(schema.names)},
        "coverage": 0.9,
        "targets": targets,
    }
    return Ensemble.load(folder, spec)


@dataclass(frozen=True)
class Case:
    """A holdout, the parameters it is judged under, and the judgement."""

    holdout: Holdout
    params: Params
    judgement: Judgement


def make_case(folder: Path, *, momentum: float) -> Case:
    params = small_params()
    series = {name: market(name, seed=i, count=1_100, momentum=momentum) for i, name in enumerate(("AAA", "BBB"))}
    holdout = build(folder, params, series)
    return Case(holdout, params, judge(holdout, params))


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Range can be forecast, direction cannot."""
    return make_case(tmp_path_factory.mktemp("honest"), momentum=0.5)


@pytest.fixture(scope="session")
def skilled(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two bars in three go the way of the one before."""
    return make_case(tmp_path_factory.mktemp("skilled"), momentum=0.67)
