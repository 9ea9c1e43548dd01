"""Small real bundles: linear ONNX graphs over a handful of features, packed, hashed and verified like any other."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.feature_files import write_rows
from tradeloop.atomic import write_bytes, write_json, write_parquet
from tradeloop.bundle import FORECASTS, Bundle, write_bundle
from tradeloop.config import MODELS, TARGETS, Labels, Target
from tradeloop.dataset import Matrix
from tradeloop.ensemble import Ensemble
from tradeloop.layout import Layout
from tradeloop.manifest import Facts, Thresholds
from tradeloop.reference import build_reference
from tradeloop.schema import Schema
from tradeloop.splits import Fold, write_splits

REPOSITORY = Path(__file__).resolve().parents[1]
MARKET = "us_daily"
SYMBOLS = ("AAPL", "IBM", "MSFT", "GOOG")
NAMES = ("ret_1", "ret_5", "vol_20", "volume_ratio", "gap", "weekday")
NOW = datetime(2013, 3, 1, 21, tzinfo=UTC)
PROVEN: dict[Target, bool] = {"direction": True, "return": False, "range": True}


def tiny_schema(names: tuple[str, ...] = NAMES, market: str = MARKET) -> Schema:
    """Return a schema whose hash follows from its names."""
    return Schema(market, names, hashlib.sha256("\n".join(names).encode()).hexdigest())


def linear_graph(weights: NDArray[np.float32], bias: float, *, probability: bool) -> bytes:
    """Return a graph that maps features (n, d) to ``features @ weights + bias``, through a sigmoid if asked."""
    tensors = [
        numpy_helper.from_array(weights.reshape(-1, 1).astype(np.float32), "weights"),
        numpy_helper.from_array(np.array([bias], dtype=np.float32), "bias"),
    ]
    last = "raw" if probability else "forecast"
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], [last]),
    ]
    if probability:
        nodes.append(helper.make_node("Sigmoid", ["raw"], ["forecast"]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(weights)])],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["n", 1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_graphs(width: int, seed: int) -> dict[str, bytes]:
    """Return a graph for each model and target; different seeds give different forecasts."""
    rng = np.random.default_rng(seed)
    graphs = {}
    for model in MODELS:
        for target in TARGETS:
            scale = {"direction": 0.4, "return": 0.002, "range": 0.1}[target]
            weights = (scale * rng.standard_normal(width)).astype(np.float32)
            bias = -4.5 if target == "range" else 0.0
            graphs[f"{model}/{target}.onnx"] = linear_graph(weights, bias, probability=target == "direction")
    return graphs


def tiny_spec(schema: Schema) -> dict[str, Any]:
    """Return an ensemble of all models at equal weights."""

    def members(target: Target) -> dict[str, Any]:
        return {model: {"file": f"{model}/{target}.onnx", "weight": 1 / len(MODELS)} for model in MODELS}

    platt = {"kind": "platt", "slope": 0.9, "intercept": 0.05}
    quantiles = {"return": ("range", -1.7, 1.7), "range": ("none", -0.6, 0.6)}
    targets: dict[str, Any] = {
        "direction": {"space": "logit", "members": members("direction"), "intercept": 0.0, "calibrator": platt}
    }
    for target in ("return", "range"):
        scale, low, high = quantiles[target]
        conformal = {"scale": scale, "low": low, "high": high}
        targets[target] = {"space": "identity", "members": members(target), "intercept": 0.0, "conformal": conformal}
    return {
        "format": 1,
        "market": schema.market,
        "schema": {"hash": schema.hash, "names": list(schema.names)},
        "coverage": 0.9,
        "targets": targets,
    }


def tiny_rows(count: int, width: int = len(NAMES), seed: int = 0) -> NDArray[np.float32]:
    """Return feature rows (count, width)."""
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def tiny_facts(schema: Schema, **changes: Any) -> Facts:
    """Return what a pipeline would say of a bundle."""
    facts: dict[str, Any] = {
        "name": "tradeloop",
        "market": schema.market,
        "symbols": list(SYMBOLS),
        "data_hash": "d" * 64,
        "train_end": datetime(2010, 1, 4, 21, tzinfo=UTC),
        "git_revision": "unknown",
        "git_dirty": False,
        "labels": Labels(),
        "thresholds": Thresholds(probability=0.02, cost_bps=0.0, min_edge_bps=0.0),
        "edge_proven": PROVEN,
        "versions": {"onnxruntime": "1.31.1"},
    }
    return Facts(**(facts | changes))


def tiny_bundle(
    folder: Path, *, seed: int = 0, passed: bool = True, schema: Schema | None = None, **facts: Any
) -> Bundle:
    """Write a bundle to `folder` and return it; `seed` picks its weights, `facts` change what its manifest says."""
    schema = schema or tiny_schema()
    width = len(schema)
    graphs, spec = tiny_graphs(width, seed), tiny_spec(schema)
    return write_bundle(
        folder,
        tiny_facts(schema, **facts),
        spec=spec,
        schema=schema,
        graphs=graphs,
        golden=tiny_rows(12, width, seed=99),
        metrics={"direction": {"auc": 0.55}},
        gate={"verdict": "pass" if passed else "fail", "reasons": [], "targets": {}},
        reference=tiny_reference(Ensemble.load(graphs, spec), schema),
    )


def tiny_reference(ensemble: Ensemble, schema: Schema, *, bars: int = 100, seed: int = 8) -> dict[str, Any]:
    """Return what a holdout of `bars` bars of all symbols says of an ensemble that is right about everything."""
    rng = np.random.default_rng(seed)
    x = tiny_rows(bars * len(SYMBOLS), len(schema), seed)
    forecast = ensemble.forecast(x)
    volatility = np.exp(forecast.range + 0.3 * rng.standard_normal(len(x)))
    up = rng.random(len(x)) < forecast.p_up
    moves = np.where(up, 1, -1) * np.abs(rng.standard_normal(len(x))) * volatility
    times = np.repeat(np.datetime64("2010-01-04", "us") + np.arange(bars) * np.timedelta64(1, "D"), len(SYMBOLS))
    y: dict[Target, NDArray[np.float64]] = {
        "direction": up.astype(np.float64),
        "return": moves,
        "range": np.log(volatility),
    }
    symbol = np.array(SYMBOLS * bars, dtype=object)
    matrix = Matrix(schema, x, y, symbol, times, times + np.timedelta64(1, "D"))
    frame = pd.DataFrame({"row": np.arange(len(x)), **{name: getattr(forecast, name) for name in FORECASTS}})
    return build_reference(frame, matrix, train=np.arange(len(x)), coverage=float(ensemble.spec["coverage"]))


def tiny_pipeline(layout: Layout, *, seed: int = 0, passed: bool = True, note: float = 0.5) -> None:
    """Write what every stage before `package` leaves: 60 bars of four symbols, trained members, stack, reports.

    `seed` picks the members, `note` goes into metrics.json; another of either makes another bundle. The service's
    code is that of this repository.
    """
    schema = tiny_schema()
    for name in ("tradeloop", "bentos"):
        if not (layout.root / name).exists():
            (layout.root / name).symlink_to(REPOSITORY / name)
    if not layout.params.exists():
        layout.params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    frame = _matrix_frame(schema)
    write_parquet(layout.training / "matrix.parquet", frame)
    schema.save(layout.training / "schema.json")
    schema.save(layout.store / "schema.json")
    half = len(frame) // 2
    first = Fold(0, np.arange(half // 2), np.arange(half // 2, half))
    write_splits(layout, [first], Fold(-1, np.arange(half), np.arange(half, len(frame))))
    graphs, spec = tiny_graphs(len(schema), seed), tiny_spec(schema)
    for name, graph in graphs.items():
        write_bytes(layout.models / "trained" / name, graph)
    write_json(layout.models / "stack" / "stack.json", spec)
    _write_reports(layout, frame, Ensemble.load(graphs, spec), passed=passed, note=note)
    for symbol, rows in frame.groupby("symbol"):
        features = rows[["symbol", "timestamp"]].assign(created=rows["timestamp"], **{n: rows[n] for n in schema.names})
        write_rows(layout.features, str(symbol), features)


def _matrix_frame(schema: Schema) -> pd.DataFrame:
    days = pd.date_range(NOW - timedelta(days=59), NOW, freq="D").as_unit("us")
    keys = [(day, symbol) for day in days for symbol in sorted(SYMBOLS)]
    x = tiny_rows(len(keys), len(schema), seed=5)
    frame = pd.DataFrame({"symbol": [symbol for _, symbol in keys], "timestamp": [day for day, _ in keys]})
    frame["timestamp"] = frame["timestamp"].dt.as_unit("us")
    frame["label_end"] = frame["timestamp"] + pd.Timedelta(days=1)
    frame = pd.concat([frame, pd.DataFrame(x, columns=list(schema.names))], axis=1)
    returns = 0.01 * x[:, 0].astype(np.float64)
    labels = {"direction": (returns > 0).astype(np.float64), "return": returns}
    return frame.assign(**labels, range=-4.5 + 0.1 * x[:, 1].astype(np.float64))


def _write_reports(layout: Layout, frame: pd.DataFrame, ensemble: Ensemble, *, passed: bool, note: float) -> None:
    holdout = np.arange(len(frame) // 2, len(frame))
    forecast = ensemble.forecast(frame[list(ensemble.names)].to_numpy(dtype=np.float32)[holdout])
    columns = {name: getattr(forecast, name) for name in FORECASTS}
    write_parquet(layout.reports / "holdout.parquet", pd.DataFrame({"row": holdout.astype(np.int64), **columns}))
    write_json(layout.reports / "metrics.json", {"direction": {"auc": note}})
    reasons = [] if passed else [{"target": "range", "check": "r2", "ok": False, "text": "range R² .1 is below .2"}]
    targets = {target: {"edge_proven": proven} for target, proven in PROVEN.items()}
    verdict = "pass" if passed else "fail"
    write_json(layout.reports / "gate.json", {"verdict": verdict, "reasons": reasons, "targets": targets})
