"""Stage stack: weights, calibration and intervals from forecasts out of fold."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stages._run import run
from tradeloop.atomic import write_bytes, write_json, write_parquet
from tradeloop.config import MODELS, TARGETS, Params, Target
from tradeloop.dataset import load_matrix
from tradeloop.errors import ModelError
from tradeloop.layout import Layout
from tradeloop.splits import read_splits
from tradeloop.stacking import Members, OutOfFold, fit_stack
from tradeloop.training import score


def _out_of_fold(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ModelError(f"{path} is missing: is the model in dvc.yaml, in the matrix of train?")
    return pd.read_parquet(path)


def stack(layout: Layout, params: Params) -> None:
    """Write ``data/models/stack/stack.json`` and ``oof.parquet``, and the scores of every fold for a plot."""
    matrix, (folds, holdout) = load_matrix(layout), read_splits(layout)
    frames = {name: _out_of_fold(layout.models / "trained" / name / "oof.parquet") for name in MODELS}
    keys = frames[MODELS[0]][["row", "fold"]]
    members: dict[Target, Members] = {
        target: {name: frame[target].to_numpy() for name, frame in frames.items()} for target in TARGETS
    }
    oof = OutOfFold(keys["row"].to_numpy(), keys["fold"].to_numpy(), members)
    stacked = fit_stack(matrix, oof, folds, holdout, config=params.stack)
    write_json(layout.models / "stack" / "stack.json", stacked.spec)
    own = keys.assign(**stacked.forecasts)
    write_parquet(layout.models / "stack" / "oof.parquet", own)

    rows = []
    for name, frame in (*frames.items(), ("stack", own)):
        for number, part in frame.groupby("fold"):
            for target in TARGETS:
                scores = score(target, matrix.y[target][part["row"]], part[target].to_numpy())
                rows += [(name, target, number, metric, value) for metric, value in scores.items()]
    table = pd.DataFrame(rows, columns=["model", "target", "fold", "metric", "value"])
    write_bytes(layout.reports / "folds.csv", table.to_csv(index=False, lineterminator="\n").encode())


if __name__ == "__main__":
    run("stack", stack)
