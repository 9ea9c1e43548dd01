"""Stage evaluate: the one look at the holdout, by the ensemble that will serve."""

from __future__ import annotations

import json

import pandas as pd

from stages._run import run
from tradeloop.atomic import write_bytes, write_json, write_parquet
from tradeloop.config import Params
from tradeloop.evaluate.documents import compact, csv, holdout_frame
from tradeloop.evaluate.holdout import open_holdout
from tradeloop.evaluate.judgement import judge
from tradeloop.layout import Layout
from tradeloop.report import render, verdict


def evaluate(layout: Layout, params: Params) -> None:
    """Write metrics, evaluation, holdout forecasts, the plots' tables and the report."""
    holdout = open_holdout(layout, params)
    judgement = judge(holdout, params)
    reports = layout.reports
    write_json(reports / "evaluation.json", judgement.evaluation)
    write_json(reports / "metrics.json", compact(judgement.evaluation))
    write_parquet(reports / "holdout.parquet", holdout_frame(holdout))
    for name, table in judgement.plots.items():
        write_bytes(reports / "plots" / f"{name}.csv", csv(table))
    folds = pd.read_csv(reports / "folds.csv")
    selection = json.loads((reports / "selection.json").read_text(encoding="utf-8"))
    write_bytes(reports / "report.html", render(judgement.evaluation, judgement.plots, folds, selection=selection))
    for target, scores in judgement.evaluation["targets"].items():
        found = verdict(target, scores)
        print(f"evaluate: {target}: {found['headline']}, {found['metric']} {found['value']} [{found['interval']}]")
    for control in judgement.evaluation["controls"]:
        if not control["passed"]:
            print(f"evaluate: CONTROL FAILED: {control['text']}")
    for flag in judgement.evaluation["flags"]:
        print(f"evaluate: LOOK INTO THIS: {flag}")
    print(f"evaluate: wrote {(reports / 'report.html').relative_to(layout.root)}")


if __name__ == "__main__":
    run("evaluate", evaluate)
