"""Stage dataset: the training matrix, by a point-in-time join of labels and features through Feast."""

from __future__ import annotations

from stages._run import run
from tradeloop.atomic import write_json, write_parquet
from tradeloop.config import Params
from tradeloop.dataset import build_matrix
from tradeloop.layout import Layout
from tradeloop.schema import Schema


def dataset(layout: Layout, params: Params) -> None:
    """Write ``data/training/{matrix.parquet,schema.json}`` and ``data/reports/dataset.json``."""
    schema = Schema.load(layout.store / "schema.json")
    frame, report = build_matrix(layout, params, schema)
    write_parquet(layout.training / "matrix.parquet", frame)
    schema.save(layout.training / "schema.json")
    write_json(layout.reports / "dataset.json", report)


if __name__ == "__main__":
    run("dataset", dataset)
