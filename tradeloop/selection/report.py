"""What selection did, for people: which columns, how stable the choice is, and what it changes out of fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Target
from tradeloop.metrics import METRICS
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.metrics.primary import LOSS, SKILL
from tradeloop.schema import Schema
from tradeloop.selection.choice import CONSTANT, KEPT, MEASURES, REDUNDANT, WEAK
from tradeloop.selection.chosen import Choices
from tradeloop.selection.stability import stability
from tradeloop.splits import HOLDOUT

COLUMNS = ("target", "column", "status", "instead", *MEASURES, "rank", "kept_in")


def compare(target: Target, actual: Floats, before: Floats, after: Floats, *, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the scores of forecasts of the same rows with all columns (`before`) and with the chosen ones (`after`).

    Differences are paired: both forecasts are scored on the same resamples.

    Returns
    -------
    dict
        ``before`` and ``after``: the target's skill, with intervals. ``difference``: after less before.
        ``loss_saved``: the share of the squared error, or of the log loss, that the choice saves.
    """
    skill, loss = METRICS[SKILL[target]], METRICS[LOSS[target]]
    without, chosen = (bootstrap.score(skill, actual, forecast) for forecast in (before, after))
    costs = [bootstrap.score(loss, actual, forecast) for forecast in (before, after)]
    return {
        "before": without.interval.as_dict(),
        "after": chosen.interval.as_dict(),
        "difference": (chosen - without).interval.as_dict(),
        "loss_saved": costs[1].gain(costs[0], power=1 if LOSS[target] == "log_loss" else 2).interval.as_dict(),
    }


def table(choices: Choices, schema: Schema) -> pd.DataFrame:
    """Return one row a target and column, as the final fit has it, the best ranks first; `COLUMNS`.

    ``instead`` names the column that stands for a redundant one; ``kept_in`` counts the folds, the final one included.
    """
    frames = []
    for target, by_fold in choices.items():
        last = by_fold[HOLDOUT]
        kept = sum((one.status == KEPT).astype(int) for one in by_fold.values())
        instead = [schema.names[at] if s == REDUNDANT else "" for at, s in zip(last.instead, last.status, strict=True)]
        measured = dict(zip(MEASURES, last.measures, strict=True))
        frame = pd.DataFrame({"target": target, "column": schema.names, "status": last.status, "instead": instead})
        frames.append(frame.assign(**measured, rank=last.rank, kept_in=kept).sort_values("rank", kind="stable"))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def summary(choices: Choices, schema: Schema, compared: dict[Target, dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of each target, for the metrics: counts, stability, and what `compare` found, by model."""
    found: dict[str, Any] = {"columns": len(schema)}
    for target in TARGETS:
        if target not in choices:
            continue
        by_fold = choices[target]
        last = by_fold[HOLDOUT]
        across = stability(np.array([one.status == KEPT for one in by_fold.values()]))
        found[target] = {
            **{status: int((last.status == status).sum()) for status in (KEPT, CONSTANT, REDUNDANT, WEAK)},
            "stability_inside": last.stability.as_dict(),
            "stability_across": across.as_dict(),
            "models": compared.get(target, {}),
        }
    return found
