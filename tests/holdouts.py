"""A small project on disk as evaluate finds it: bars, real features and labels, splits, and a real ensemble."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tradeloop.atomic import write_json, write_parquet
from tradeloop.bars import TIME, Bars, to_times
from tradeloop.config import TARGETS, Params, XGBoostParams, load_params
from tradeloop.evaluate.holdout import Holdout, open_holdout
from tradeloop.evaluate.judgement import Judgement, judge
from tradeloop.features import compute, schema_for
from tradeloop.labels import compute_labels
from tradeloop.layout import Layout
from tradeloop.models import open_model
from tradeloop.schema import Schema
from tradeloop.splits import holdout_split, walk_forward, write_splits

ROOT = Path(__file__).resolve().parents[1]
DAY = np.timedelta64(1, "D")
START = np.datetime64("2005-01-03T21:00:00", "us")
SYMBOLS = ("AAA", "BBB")


def market(symbol: str, *, seed: int, count: int, momentum: float) -> Bars:
    """Bars with persistent volatility; a bar goes the way of the one before it with probability `momentum`."""
    rng = np.random.default_rng(seed)
    level, side = np.zeros(count), np.ones(count)
    for t in range(1, count):
        level[t] = 0.95 * level[t - 1] + 0.25 * rng.normal()
        side[t] = side[t - 1] * (1 if rng.random() < momentum else -1)
    size = np.abs(rng.normal(size=count)) * np.exp(-4.5 + level)
    close = 50 * np.exp(np.cumsum(side * size))
    open_ = np.r_[50.0, close[:-1]] * np.exp(0.2 * np.exp(-4.5 + level) * rng.normal(size=count))
    wick = np.exp(np.exp(-4.5 + level) * np.abs(rng.normal(size=(2, count))))
    high, low = np.maximum(open_, close) * wick[0], np.minimum(open_, close) / wick[1]
    return Bars(symbol, START + np.arange(count) * DAY, open_, high, low, close, np.exp(rng.normal(12, 0.4, count)))


def make_project(root: Path, *, momentum: float, count: int = 1_700) -> Layout:
    """Write all that evaluate and gate read: two symbols, one model, and a stack with conformal quantiles."""
    layout = Layout(root)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["markets"][raw["market"]] |= {"symbols": list(SYMBOLS), "context": []}
    raw["split"] |= {"holdout": 0.3, "folds": 2}
    raw["evaluate"] |= {"bootstrap": 100}
    layout.params.write_text(yaml.safe_dump(raw))
    params = load_params(layout.params)
    schema = schema_for(params)
    parts = []
    for seed, name in enumerate(SYMBOLS):
        bars = market(name, seed=seed, count=count, momentum=momentum)
        columns = {c: getattr(bars, c) for c in ("open", "high", "low", "close", "volume")}
        times = pd.Series(bars.timestamp).dt.tz_localize("UTC").astype(TIME)
        write_parquet(layout.clean / "bars" / f"{name}.parquet", pd.DataFrame({"timestamp": times, **columns}))
        features = pd.DataFrame(compute(bars, schema), columns=list(schema.names))
        labels = compute_labels(bars, params.labels)
        keys = labels[["symbol", "timestamp", "label_end"]]
        parts.append(pd.concat([keys, features, labels[list(TARGETS)]], axis=1).dropna())
    matrix = pd.concat(parts).sort_values(["timestamp", "symbol"], ignore_index=True)
    write_parquet(layout.training / "matrix.parquet", matrix)
    schema.save(layout.training / "schema.json")
    write_json(layout.reports / "selection.json", {"columns": len(schema)})  # no columns were chosen
    times, ends = to_times(matrix["timestamp"]), to_times(matrix["label_end"])
    holdout = holdout_split(times, ends, params.split)
    write_splits(layout, walk_forward(times, ends, params.split), holdout)
    fit_ensemble(layout, schema, matrix.iloc[holdout.train])
    write_folds(layout)
    return layout


def fit_ensemble(layout: Layout, schema: Schema, train: pd.DataFrame, *, seed: int = 1, trees: int = 60) -> None:
    """Fit on the first three quarters, calibrate the intervals on the last, export and write the stack."""
    hyper = XGBoostParams(n_estimators=trees, max_depth=3, learning_rate=0.06, min_child_weight=40, subsample=0.6)
    x = train[list(schema.names)].to_numpy(np.float32)
    cut = len(x) * 3 // 4
    targets: dict[str, Any] = {}
    log_range = np.zeros(len(x) - cut)
    for target in reversed(TARGETS):  # range first: it scales the interval of the return
        y = train[target].to_numpy()
        model = open_model("xgboost")(target, hyper, seed=seed).fit(x[:cut], y[:cut])
        model.export(layout.models / "trained" / "xgboost")
        spec: dict[str, Any] = {
            "space": "logit" if target == "direction" else "identity",
            "members": {"xgboost": {"file": f"xgboost/{target}.onnx", "weight": 1.0}},
            "intercept": 0.0,
        }
        forecast = model.predict(x[cut:])
        if target == "direction":
            spec["calibrator"] = {"kind": "none"}
        else:
            log_range = forecast if target == "range" else log_range
            scale, kind = (1.0, "none") if target == "range" else (np.exp(log_range), "range")
            low, high = np.quantile((y[cut:] - forecast) / scale, [0.035, 0.965]).tolist()
            spec["conformal"] = {"scale": kind, "low": low, "high": high}
        targets[target] = spec
    names = {"hash": schema.hash, "names": list(schema.names)}
    stack = {"format": 1, "market": schema.market, "schema": names, "coverage": 0.9, "targets": targets}
    write_json(layout.models / "stack" / "stack.json", stack)


def write_folds(layout: Layout) -> None:
    rows = [
        (model, target, fold, metric, value + fold / 100)
        for model in ("stack", "xgboost")
        for target, metric, value in (("direction", "auc", 0.5), ("return", "ic", 0.0), ("range", "r2", 0.3))
        for fold in range(2)
    ]
    layout.reports.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=["model", "target", "fold", "metric", "value"])
    frame.to_csv(layout.reports / "folds.csv", index=False)


@dataclass(frozen=True)
class Case:
    """A project, its parameters, its holdout, and the judgement on it."""

    layout: Layout
    params: Params
    holdout: Holdout
    judgement: Judgement

    @property
    def evaluation(self) -> dict[str, Any]:
        return self.judgement.evaluation

    def changed(self, **evaluate: Any) -> Params:
        """The parameters with other values in the evaluate block."""
        return self.params.model_copy(update={"evaluate": self.params.evaluate.model_copy(update=evaluate)})


def make_case(root: Path, *, momentum: float) -> Case:
    layout = make_project(root, momentum=momentum)
    params = load_params(layout.params)
    holdout = open_holdout(layout, params)
    return Case(layout, params, holdout, judge(holdout, params))


def values(scores: Mapping[str, Any]) -> dict[str, float]:
    """The values of a group of scores, without their intervals."""
    return {name: score["value"] for name, score in scores.items()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
