"""Challenger against champion, on holdout rows that neither was trained on, through the bundle that serves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import Floats, Times, to_times
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.champion import open_registry
from tradeloop.config import TARGETS, Labels, Params, Target
from tradeloop.dataset import Matrix, load_matrix
from tradeloop.errors import BundleError
from tradeloop.gate import Comparison
from tradeloop.layout import Layout
from tradeloop.metrics import METRICS
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.metrics.primary import LOSS

Json = dict[str, Any]


def compare_with_champion(layout: Layout, params: Params, evaluation: Json) -> Comparison | None:
    """Return how the evaluated challenger compares with the model that serves; None if none does.

    What makes a comparison impossible (a champion of another feature schema or other labels, or one whose bundle cannot
    be read) is said, not raised: it must not keep a good challenger from replacing a broken champion.
    """
    with open_registry(layout, params) as registry:
        champion = registry.champion()
    if champion is None:
        return None
    try:
        bundle = BundleStore(layout, params).get(champion.hash)
    except BundleError as error:
        return Comparison(champion.version, 0, str(error), {})
    holdout, matrix = pd.read_parquet(layout.reports / "holdout.parquet"), load_matrix(layout)
    return compare(bundle, holdout, matrix, labels=params.labels, settings=evaluation["settings"])


def compare(champion: Bundle, holdout: pd.DataFrame, matrix: Matrix, *, labels: Labels, settings: Json) -> Comparison:
    """Score both on the holdout's rows behind the champion's training.

    Parameters
    ----------
    holdout
        The challenger's forecasts and labels, as evaluate wrote them; ``row`` points into `matrix`.
    settings
        ``block``, ``bootstrap``, ``confidence`` and ``seed`` of the evaluation.
    """
    obstacle = _obstacle(champion, matrix, labels)
    if obstacle is not None:
        return Comparison(champion.version, 0, obstacle, {})
    known = known_until(champion.manifest.train_end, matrix)
    common = holdout[to_times(holdout["timestamp"]) > known].reset_index(drop=True)
    if common.empty:
        return Comparison(champion.version, 0, None, {})
    forecast = champion.forecast(matrix.x[common["row"].to_numpy()])
    theirs = {"direction": forecast.p_up, "return": forecast.ret, "range": forecast.range}
    ours = {"direction": common["p_up"], "return": common["ret"], "range": common["range"]}
    bootstrap = Bootstrap(
        to_times(common["timestamp"]),
        block=settings["block"],
        count=settings["bootstrap"],
        confidence=settings["confidence"],
        seed=settings["seed"],
    )
    losses: dict[Target, Json] = {
        target: _losses(
            target, bootstrap, common[f"label_{target}"].to_numpy(), ours[target].to_numpy(), theirs[target]
        )
        for target in TARGETS
    }
    return Comparison(champion.version, len(common), None, losses)


def known_until(train_end: datetime, matrix: Matrix) -> np.datetime64:
    """Return when the last label that the champion trained on had ended, as far as this matrix knows its rows."""
    last = np.datetime64(train_end.astimezone(UTC).replace(tzinfo=None), "us")
    trained: Times = matrix.label_end[matrix.timestamp <= last]
    return np.datetime64(max(trained.max(), last) if len(trained) else last)


def _obstacle(champion: Bundle, matrix: Matrix, labels: Labels) -> str | None:
    if champion.schema.hash != matrix.schema.hash:
        theirs, ours = champion.schema.hash[:12], matrix.schema.hash[:12]
        return f"it has feature schema {theirs}, these rows have {ours}"
    if champion.manifest.labels != labels:
        return f"it forecasts other labels ({champion.manifest.labels}, here {labels})"
    return None


def _losses(target: Target, bootstrap: Bootstrap, actual: Floats, ours: Floats, theirs: Floats) -> Json:
    metric = METRICS[LOSS[target]]
    challenger, champion = (bootstrap.score(metric, actual, forecast) for forecast in (ours, theirs))
    difference = (challenger - champion).interval.as_dict()
    return {
        "metric": metric.name,
        "challenger": challenger.interval.as_dict()["value"],
        "champion": champion.interval.as_dict()["value"],
        "difference": difference,
    }
