"""The judgement on the holdout: all scores, what they prove, and the tables behind the plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.config import TARGETS, Evaluate, Params
from tradeloop.evaluate.controls import bounce, run_controls
from tradeloop.evaluate.documents import range_frame, reliability_frame
from tradeloop.evaluate.edge import prove
from tradeloop.evaluate.holdout import Holdout
from tradeloop.evaluate.importance import permutation_importance
from tradeloop.evaluate.scores import resampler, score_target, slices
from tradeloop.evaluate.trading import judge_trading


@dataclass(frozen=True)
class Judgement:
    """All that was found.

    Attributes
    ----------
    evaluation
        JSON content; a score is ``{value, low, high}``, null where it is not defined.
    plots
        Tables by name: ``equity``, ``reliability``, ``range``, ``importance``.
    """

    evaluation: dict[str, Any]
    plots: dict[str, pd.DataFrame]


def judge(holdout: Holdout, params: Params) -> Judgement:
    """Judge the ensemble's forecast of the holdout."""
    config, seed = params.evaluate, params.seed
    bootstrap = resampler(holdout.timestamp, config, seed)
    targets: dict[str, Any] = {}
    for target in TARGETS:
        scores = score_target(holdout, target, bootstrap)
        targets[target] = scores | {"edge": prove(target, scores, range_baselines=config.range_baselines)}
    trading, equity = judge_trading(holdout, config, seed, searched=params.features.discovered.trials)
    evaluation = {
        "market": params.market,
        "schema": holdout.schema.hash,
        "holdout": _facts(holdout),
        "settings": config.model_dump(mode="json") | {"coverage": holdout.coverage, "seed": seed},
        "labels": params.labels.model_dump(mode="json"),
        "targets": targets,
        "slices": slices(holdout, config, seed),
        "trading": trading,
        "controls": run_controls(holdout, bootstrap, config, seed),
        "bounce": bounce(holdout, bootstrap),
        "flags": _flags(targets, config),
    }
    plots = {
        "equity": equity,
        "reliability": reliability_frame(holdout),
        "range": range_frame(holdout),
        "importance": permutation_importance(holdout, seed),
    }
    return Judgement(evaluation, plots)


def _facts(holdout: Holdout) -> dict[str, Any]:
    def moment(time: np.datetime64) -> str:
        return f"{np.datetime_as_string(time, unit='s')}Z"

    sample = holdout.sample
    return {
        "rows": len(holdout.row),
        "timestamps": len(np.unique(holdout.timestamp)),
        "symbols": sorted(set(holdout.symbol)),
        "first": moment(holdout.timestamp.min()),
        "last": moment(holdout.timestamp.max()),
        "train_rows": len(sample.train),
        "train_first": moment(sample.timestamp[sample.train].min()),
        "train_last": moment(sample.timestamp[sample.train].max()),
        "bars_per_year": holdout.bars_per_year,
    }


def _flags(targets: dict[str, Any], config: Evaluate) -> list[str]:
    """Return what a person should look into before believing it."""
    auc = targets["direction"]["metrics"]["auc"]["value"]
    if auc is None or auc <= config.suspicious_auc:
        return []
    return [
        f"direction AUC {auc:.3f} is above {config.suspicious_auc:g}: on a liquid market that is a leak or bid-ask "
        "bounce until shown otherwise"
    ]
