"""Stage split: walk-forward folds and the holdout, purged and embargoed."""

from __future__ import annotations

from stages._run import run
from tradeloop.config import Params
from tradeloop.dataset import load_matrix
from tradeloop.layout import Layout
from tradeloop.splits import holdout_split, walk_forward, write_splits


def split(layout: Layout, params: Params) -> None:
    """Write ``data/training/splits.parquet``."""
    matrix = load_matrix(layout)
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    write_splits(layout, folds, holdout_split(matrix.timestamp, matrix.label_end, params.split))


if __name__ == "__main__":
    run("split", split)
