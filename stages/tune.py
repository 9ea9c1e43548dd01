"""Stage tune: search one model's hyperparameters, target by target (``python -m stages.tune xgboost``)."""

from __future__ import annotations

import sys
from functools import partial

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.config import Params
from tradeloop.dataset import load_matrix
from tradeloop.layout import Layout
from tradeloop.models import open_model
from tradeloop.selection.chosen import read_chosen
from tradeloop.splits import read_splits
from tradeloop.tuning import tune as search


def tune(name: str, layout: Layout, params: Params) -> None:
    """Write ``data/models/tuned/<model>.json``: for each target all hyperparameters, and every trial's score."""
    open_model(name)
    folds, _ = read_splits(layout)
    matrix = load_matrix(layout)
    studies = search(name, matrix, folds, params=params, chosen=read_chosen(layout, matrix.schema))
    found = {
        target: {"params": study.best.model_dump(), "metric": study.metric, "trials": study.trials}
        for target, study in studies.items()
    }
    write_json(layout.models / "tuned" / f"{name}.json", found)


if __name__ == "__main__":
    run("tune", partial(tune, " ".join(sys.argv[1:])))
