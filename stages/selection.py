"""Stage selection: the columns that each fold's models may read, and what the choice changes out of fold."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from stages._run import run
from tradeloop.atomic import write_bytes, write_json
from tradeloop.config import TARGETS, Params, Target
from tradeloop.dataset import Matrix, load_matrix
from tradeloop.layout import Layout
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.selection import EVERY, choose_all
from tradeloop.selection.chosen import FILE, Chosen, chosen_of
from tradeloop.selection.report import compare, summary, table
from tradeloop.splits import Fold, read_splits
from tradeloop.training import out_of_fold


def comparison(matrix: Matrix, folds: list[Fold], chosen: Chosen, params: Params) -> dict[Target, dict[str, Any]]:
    """Return the scores out of fold with all columns and with the chosen ones, by target and model."""
    config, rows = params.evaluate, np.concatenate([fold.test for fold in folds])
    bootstrap = Bootstrap(
        matrix.timestamp[rows],
        block=config.block,
        count=config.bootstrap,
        confidence=config.confidence,
        seed=params.seed,
    )
    found: dict[Target, dict[str, Any]] = {target: {} for target in TARGETS}
    with tqdm(total=len(TARGETS) * len(params.selection.compare), desc="compare", unit="model") as bar:
        for target in TARGETS:
            for name in params.selection.compare:
                fits = {"hyper": getattr(params.train, name), "params": params}
                parts = [out_of_fold(name, matrix, target, folds, **fits, chosen=which) for which in (EVERY, chosen)]
                before, after = (np.concatenate(list(part)) for part in parts)
                found[target][name] = compare(target, matrix.y[target][rows], before, after, bootstrap=bootstrap)
                bar.update()
    return found


def selection(layout: Layout, params: Params) -> None:
    """Write ``data/models/selection.json``, and what was found to ``data/reports/selection.{json,csv}``."""
    matrix, (folds, holdout) = load_matrix(layout), read_splits(layout)
    choices = choose_all(matrix, [*folds, holdout], params=params)
    chosen = chosen_of(choices)
    compared = comparison(matrix, folds, chosen, params) if choices else {}
    write_json(layout.models / FILE, chosen.content(matrix.schema))
    write_json(layout.reports / "selection.json", summary(choices, matrix.schema, compared))
    csv = table(choices, matrix.schema).to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_bytes(layout.reports / "selection.csv", csv.encode())


if __name__ == "__main__":
    run("selection", selection)
