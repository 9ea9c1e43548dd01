"""Assembling the bundle from what training, evaluation and gate left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bundle import FORECASTS, TOLERANCE, Bundle, members, write_bundle
from tradeloop.config import TARGETS, Params
from tradeloop.dataset import Matrix, data_hash, load_matrix
from tradeloop.errors import BundleError
from tradeloop.layout import Layout
from tradeloop.manifest import Facts, Thresholds
from tradeloop.reference import build_reference
from tradeloop.splits import read_splits

CODE = ("tradeloop", "stages", "feature_repo", "bentos", "params.yaml", "dvc.yaml", "requirements.lock")
"""What a model depends on beside the data: the bundle names the last commit that touched any of it."""
LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "torch", "xgboost-cpu", "skl2onnx", "onnxmltools")
GOLDEN_ROWS = 12


def assemble(layout: Layout, params: Params) -> Bundle:
    """Write ``data/models/bundle`` from what training, evaluation and gate left; the same input gives the same bytes.

    Raises
    ------
    BundleError
        The models are not those that were evaluated, or do not fit schema and stack.
    """
    spec = _read_json(layout.models / "stack" / "stack.json")
    gate = _read_json(layout.reports / "gate.json")
    matrix = load_matrix(layout)
    golden, evaluated = _golden_rows(layout, matrix)
    trained = layout.models / "trained"
    bundle = write_bundle(
        layout.models / "bundle",
        _facts(layout, params, matrix, gate),
        spec=spec,
        schema=matrix.schema,
        graphs={name: _read(trained / name) for name in members(spec)},
        golden=golden,
        metrics=_read_json(layout.reports / "metrics.json"),
        gate=gate,
        reference=build_reference(
            pd.read_parquet(layout.reports / "holdout.parquet"),
            matrix,
            train=read_splits(layout)[1].train,
            coverage=float(spec["coverage"]),
        ),
    )
    forecast = bundle.forecast(golden)
    for name in FORECASTS:
        difference = float(np.abs(getattr(forecast, name) - evaluated[name]).max())
        if not difference <= TOLERANCE:
            raise BundleError(f"the bundle's {name} differs by {difference:.3g} from what was evaluated: run evaluate")
    return bundle


def _facts(layout: Layout, params: Params, matrix: Matrix, gate: Mapping[str, Any]) -> Facts:
    _, holdout = read_splits(layout)
    revision, dirty = _revision(layout.root)
    proven = {target: bool(gate["targets"].get(target, {}).get("edge_proven")) for target in TARGETS}
    thresholds = Thresholds(
        probability=params.evaluate.threshold,
        cost_bps=params.evaluate.cost_bps,
        min_edge_bps=params.serving.min_edge_bps,
    )
    return Facts(
        name=params.package.name,
        market=params.market,
        symbols=list(params.active.symbols),
        data_hash=data_hash(layout),
        train_end=pd.Timestamp(matrix.timestamp[holdout.train].max()).to_pydatetime().replace(tzinfo=UTC),
        git_revision=revision,
        git_dirty=dirty,
        labels=params.labels,
        thresholds=thresholds,
        edge_proven=proven,
        versions=_versions(),
    )


def _golden_rows(layout: Layout, matrix: Matrix) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Return a dozen feature rows spread over the holdout, and the forecasts with which they were evaluated."""
    evaluated = pd.read_parquet(layout.reports / "holdout.parquet")
    if evaluated.empty:
        raise BundleError("the holdout has no rows: a bundle needs some to be checked against")
    chosen = evaluated.iloc[np.unique(np.linspace(0, len(evaluated) - 1, GOLDEN_ROWS).astype(int))]
    return matrix.x[chosen["row"].to_numpy()], chosen.reset_index(drop=True)


def _revision(root: Path) -> tuple[str, bool]:
    """Return the last commit that touched code or parameters, and whether they differ from it now."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments, "--", *CODE]
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout.strip()

    try:
        return git("log", "-1", "--format=%H") or "unknown", bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} must hold an object, got {type(content).__name__}")
    return content
