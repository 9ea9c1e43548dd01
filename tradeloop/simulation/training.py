"""A retraining in memory: the same folds, fits, stack, judgement and gate as the stages, on what is known by now."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars
from tradeloop.baselines import Sample
from tradeloop.bundle import Bundle, members, write_bundle
from tradeloop.config import TARGETS, ModelName, Params, Target
from tradeloop.dataset import Matrix
from tradeloop.ensemble import Ensemble
from tradeloop.errors import ModelError
from tradeloop.evaluate.champion import compare
from tradeloop.evaluate.documents import compact, holdout_frame
from tradeloop.evaluate.holdout import Holdout, bars_per_year
from tradeloop.evaluate.judgement import judge
from tradeloop.gate import decide
from tradeloop.keeping import Kept
from tradeloop.manifest import Facts, Thresholds
from tradeloop.reference import build_reference
from tradeloop.selection.chosen import choose_all, chosen_of
from tradeloop.splits import Fold, holdout_split, walk_forward
from tradeloop.stacking import Members, OutOfFold, fit_stack
from tradeloop.training import fit, out_of_fold

GOLDEN_ROWS = 12


@dataclass(frozen=True)
class Trained:
    """A trained challenger and what the gate said; `cpu_seconds` is what it cost."""

    bundle: Bundle
    graphs: Mapping[str, bytes]
    gate: Mapping[str, Any]
    cpu_seconds: float
    rows: int

    @property
    def passed(self) -> bool:
        """Whether the gate let it through."""
        return bool(self.gate["verdict"] == "pass")


def train_bundle(
    matrix: Matrix,
    bars: Mapping[str, Bars],
    params: Params,
    *,
    models: tuple[ModelName, ...],
    folder: Path,
    champion: Bundle | None,
    kept: Kept | None = None,
) -> Trained:
    """Train, stack, judge, gate and pack.

    Parameters
    ----------
    matrix
        The rows known by now; the splitter takes its holdout from their end.
    bars
        Clean bars, up to now.
    models
        Which of the models to train, at the hyperparameters of ``params.train``.
    folder
        Where bundles are written, one folder a version.
    champion
        Whom the gate compares with; None before the first.
    kept
        Members that are taken over; see `tradeloop.keeping`.

    Raises
    ------
    ModelError
        Too few rows for the folds, or a fold with one class only.
    """
    began = time.process_time()
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    last = holdout_split(matrix.timestamp, matrix.label_end, params.split)
    graphs, oof = _fit_all(matrix, folds, last, params, models=models, kept=kept)
    stacked = fit_stack(matrix, oof, folds, last, config=params.stack)
    holdout = _holdout(matrix, last, stacked.spec, graphs, bars, params)
    judgement = judge(holdout, params)
    comparison = None
    if champion is not None:
        settings = judgement.evaluation["settings"]
        comparison = compare(champion, holdout_frame(holdout), matrix, labels=params.labels, settings=settings)
    verdict = decide(judgement.evaluation, params.gate, comparison).as_dict()
    with tempfile.TemporaryDirectory(dir=folder) as staging:
        bundle = write_bundle(
            Path(staging) / "bundle",
            _facts(matrix, last, params, verdict),
            spec=stacked.spec,
            schema=matrix.schema,
            graphs={name: graphs[name] for name in members(stacked.spec)},
            golden=_golden(matrix, last),
            metrics=compact(judgement.evaluation),
            gate=verdict,
            reference=build_reference(holdout_frame(holdout), matrix, train=last.train, coverage=params.stack.coverage),
        )
    return Trained(bundle, graphs, verdict, time.process_time() - began, len(matrix))


def _fit_all(
    matrix: Matrix, folds: list[Fold], last: Fold, params: Params, *, models: tuple[ModelName, ...], kept: Kept | None
) -> tuple[dict[str, bytes], OutOfFold]:
    """Return the graphs of the final fits, and the forecasts out of fold."""
    graphs: dict[str, bytes] = {}
    forecasts: dict[Target, Members] = {}
    chosen = chosen_of(choose_all(matrix, [*folds, last], params=params))
    for target in TARGETS:
        if any(len(set(matrix.y[target][fold.train])) < 2 for fold in (*folds, last)):
            raise ModelError(f"a fold has one value of {target} only: {len(matrix)} rows are too few to train on")
        found: dict[str, NDArray[np.float64]] = {}
        for name in models:
            if kept is not None and kept.has(name, target):
                found[name] = np.concatenate([kept.forecast(name, target, matrix.x[fold.test]) for fold in folds])
                graphs[f"{name}/{target}.onnx"] = kept.graph(name, target)
                continue
            hyper = getattr(params.train, name)
            parts = out_of_fold(name, matrix, target, folds, hyper=hyper, params=params, chosen=chosen)
            found[name] = np.concatenate(list(parts))
            with tempfile.TemporaryDirectory() as folder:
                columns = chosen.of(target, last.number)
                final = fit(name, matrix, target, last.train, hyper=hyper, params=params, columns=columns)
                final.export(Path(folder))
                graphs[f"{name}/{target}.onnx"] = (Path(folder) / f"{target}.onnx").read_bytes()
        forecasts[target] = found
    rows = np.concatenate([fold.test for fold in folds])
    numbers = np.concatenate([np.full(len(fold.test), fold.number) for fold in folds])
    return graphs, OutOfFold(rows, numbers, forecasts)


def _holdout(
    matrix: Matrix,
    last: Fold,
    spec: Mapping[str, Any],
    graphs: Mapping[str, bytes],
    bars: Mapping[str, Bars],
    params: Params,
) -> Holdout:
    ensemble = Ensemble.load(graphs, spec)
    return Holdout(
        market=params.market,
        schema=matrix.schema,
        sample=Sample(matrix.symbol, matrix.timestamp, matrix.label_end, matrix.y, last.train, last.test),
        x=matrix.x,
        bars=bars,
        labels=params.labels,
        ensemble=ensemble,
        forecast=ensemble.forecast(matrix.x[last.test]),
        coverage=float(spec["coverage"]),
        bars_per_year=bars_per_year(matrix.timestamp),
    )


def _golden(matrix: Matrix, last: Fold) -> NDArray[np.float32]:
    chosen = np.unique(np.linspace(0, len(last.test) - 1, GOLDEN_ROWS).astype(int))
    return np.asarray(matrix.x[last.test[chosen]])


def _facts(matrix: Matrix, last: Fold, params: Params, verdict: Mapping[str, Any]) -> Facts:
    end: datetime = matrix.timestamp[last.train].max().astype("datetime64[us]").item()
    return Facts(
        name=params.package.name,
        market=params.market,
        symbols=list(params.active.symbols),
        data_hash="0" * 64,
        train_end=end.replace(tzinfo=UTC),
        git_revision="simulation",
        git_dirty=False,
        labels=params.labels,
        thresholds=Thresholds(
            probability=params.evaluate.threshold,
            cost_bps=params.evaluate.cost_bps,
            min_edge_bps=params.serving.min_edge_bps,
        ),
        edge_proven={target: bool(verdict["targets"].get(target, {}).get("edge_proven")) for target in TARGETS},
        versions={},
    )
