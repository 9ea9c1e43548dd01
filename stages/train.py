"""Stage train: one model's forecasts out of fold, then its final fit, exported (``python -m stages.train xgboost``)."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from tqdm import tqdm

from stages._run import run
from tradeloop.atomic import write_bytes, write_json, write_parquet
from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Params, Target
from tradeloop.dataset import load_matrix
from tradeloop.keeping import open_kept
from tradeloop.layout import Layout
from tradeloop.models import open_model
from tradeloop.selection.chosen import named, read_chosen
from tradeloop.splits import read_splits
from tradeloop.training import fit, forecast_frame, out_of_fold, score


def train(name: str, layout: Layout, params: Params) -> None:
    """Write graphs, native files, ``oof.parquet`` and ``meta.json`` to ``data/models/trained/<model>/``."""
    model = open_model(name)
    matrix, (folds, holdout) = load_matrix(layout), read_splits(layout)
    tuned = json.loads((layout.models / "tuned" / f"{name}.json").read_text(encoding="utf-8"))
    folder = layout.models / "trained" / name
    kept, chosen = open_kept(layout, params, matrix), read_chosen(layout, matrix.schema)
    forecasts: dict[Target, list[Floats]] = {}
    meta: dict[str, Any] = {"model": name, "schema": matrix.schema.hash, "targets": {}}
    with tqdm(total=len(TARGETS) * (len(folds) + 1), desc=f"train {name}", unit="fit") as bar:
        for target in TARGETS:
            hyper: Any = model.params_type.model_validate(tuned[target]["params"])
            columns = chosen.of(target, holdout.number)
            found = {"params": hyper.model_dump(), "train_rows": len(holdout.train)} | named(columns, matrix.schema)
            if kept is not None and kept.has(name, target):
                parts = iter([kept.forecast(name, target, matrix.x[fold.test]) for fold in folds])
                write_bytes(folder / f"{target}.onnx", kept.graph(name, target))
                found = {"kept": params.train.keep.bundle, "train_rows": 0}
            else:
                parts = out_of_fold(name, matrix, target, folds, hyper=hyper, params=params, chosen=chosen)
            forecasts[target], scores = [], []
            for fold, values in zip(folds, parts, strict=True):
                forecasts[target].append(values)
                scores.append({"fold": fold.number} | score(target, matrix.y[target][fold.test], values))
                bar.update()
            if "kept" not in found:
                fit(name, matrix, target, holdout.train, hyper=hyper, params=params, columns=columns).export(folder)
            bar.update()
            meta["targets"][target] = {**found, "folds": scores}
    write_parquet(folder / "oof.parquet", forecast_frame(folds, forecasts))
    write_json(folder / "meta.json", meta)


if __name__ == "__main__":
    run("train", partial(train, " ".join(sys.argv[1:])))
