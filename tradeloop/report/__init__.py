"""The evaluation as one HTML file for a person: verdict first, then what is behind it. Opens without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tradeloop.config import TARGETS, Target
from tradeloop.metrics.primary import SKILL
from tradeloop.pages import render_page

NAMES = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "log_loss": "Log loss",
    "brier": "Brier",
    "ece": "ECE",
    "ic": "IC",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "coverage": "Coverage",
    "width": "Width",
    "interval_score": "Interval score",
    "sharpe": "Sharpe, annual",
    "sortino": "Sortino, annual",
    "total_return": "Total net return",
    "max_drawdown": "Deepest drawdown",
    "profit_factor": "Profit factor",
    "hit_rate": "Hit rate",
    "turnover": "Turnover a bar",
}
FORECASTERS = {
    "random_forest": "random forest",
    "mlp": "MLP",
    "xgboost": "XGBoost",
    "majority": "majority class",
    "previous": "previous value",
    "mean": "training mean",
    "ewma": "EWMA",
    "har": "HAR",
    "buy_and_hold": "buy and hold",
}
POINT = {
    "direction": ("auc", "log_loss", "brier", "accuracy", "ece"),
    "return": ("ic", "r2", "rmse", "mae"),
    "range": ("r2", "ic", "rmse", "mae"),
}
TRADING = ("total_return", "sharpe", "sortino", "max_drawdown", "profit_factor", "hit_rate")
PERCENT = frozenset({"accuracy", "coverage", "total_return", "max_drawdown", "hit_rate"})
BASIS_POINTS = frozenset({("return", "rmse"), ("return", "mae"), ("return", "width"), ("return", "interval_score")})

Json = Mapping[str, Any]


def render(
    evaluation: Json, plots: Mapping[str, pd.DataFrame], folds: pd.DataFrame, *, selection: Json | None = None
) -> bytes:
    """Return the report.

    Parameters
    ----------
    evaluation
        The content of evaluation.json.
    plots
        The tables ``equity``, ``reliability``, ``range`` and ``importance``.
    folds
        ``model``, ``target``, ``fold``, ``metric``, ``value``.
    selection
        The content of selection.json; what it changed has a section of its own where columns were chosen.
    """
    from tradeloop.report import plots as figures

    coverage = evaluation["settings"]["coverage"]
    return render_page(
        "report.html.j2",
        evaluation=evaluation,
        verdicts=[verdict(target, evaluation["targets"][target]) for target in TARGETS],
        tables=[score_table(target, evaluation["targets"][target], coverage) for target in TARGETS],
        trading=trading_table(evaluation["trading"]),
        selection=selection_table(selection or {}),
        slices=slice_tables(evaluation["slices"]),
        names=NAMES,
        number=number,
        interval=interval,
        figures={
            "equity": figures.equity(plots["equity"]),
            "reliability": figures.reliability(plots["reliability"]),
            "range": figures.range_scatter(plots["range"]),
            "path": figures.range_path(plots["range"], coverage),
            "importance": [figures.importance(plots["importance"], target) for target in TARGETS],
            "folds": [figures.folds(folds, target) for target in TARGETS],
        },
    )


def number(metric: str, value: float | None, target: str = "") -> str:
    """Return a score as a person reads it; a dash where it is not defined."""
    if value is None:
        return "–"
    if metric in PERCENT:
        return f"{100 * value:.1f}%"
    if (target, metric) in BASIS_POINTS:
        return f"{1e4 * value:.1f} bp"
    return f"{value:.2f}" if metric in ("sharpe", "sortino", "profit_factor", "turnover") else f"{value:.3f}"


def interval(metric: str, score: Json, target: str = "") -> str:
    """Return the ends of a score's interval; nothing where it is not defined."""
    if score["low"] is None:
        return ""
    return f"{number(metric, score['low'], target)} … {number(metric, score['high'], target)}"


def verdict(target: Target, scores: Json) -> dict[str, Any]:
    """Return what is proven of a target, in a sentence, with the reasons."""
    edge = scores["edge"]
    metric = edge["metric"]
    skill = {"value": edge["value"], "low": edge["interval"][0], "high": edge["interval"][1]}
    reasons = [check["text"] for check in edge["checks"] if edge["proven"] or not check["ok"]]
    if target == "range":
        reasons.append(_beside_har(scores["differences"]["har"]["gain"]))
    return {
        "target": target,
        "proven": edge["proven"],
        "headline": "proven skill" if edge["proven"] else "no proven edge",
        "metric": NAMES[metric],
        "value": number(metric, skill["value"]),
        "interval": interval(metric, skill),
        "served": "served as a forecast" if edge["proven"] else "served as information only",
        "reasons": reasons,
    }


def _beside_har(gain: Json) -> str:
    if gain["low"] is None:
        return "the difference to HAR is not defined"
    shown = f"squared error {100 * gain['value']:.1f}% lower [{100 * gain['low']:.1f}, {100 * gain['high']:.1f}]"
    if gain["low"] > 0:
        return f"better than HAR: {shown}"
    return f"worse than HAR: {shown}" if gain["high"] < 0 else f"not distinguishable from HAR: {shown}"


def score_table(target: Target, scores: Json, coverage: float) -> dict[str, Any]:
    """Return a target's table: the ensemble, its members and the baselines, a row each."""
    metrics = POINT[target]

    def row(name: str, values: Json, kind: str) -> dict[str, Any]:
        cells = [(number(m, values[m]["value"], target), interval(m, values[m], target)) for m in metrics]
        return {"name": FORECASTERS.get(name, name), "kind": kind, "cells": cells, "gain": _gain(scores, name)}

    rows = [row("ensemble", scores["metrics"], "ours")]
    rows += [row(name, values, "baseline") for name, values in scores["baselines"].items()]
    rows += [row(name, values, "member") for name, values in scores["members"].items()]
    widths = [
        {
            "name": f"{NAMES[m]} ({coverage:.0%} nominal)" if m == "coverage" else NAMES[m],
            "value": number(m, scores["metrics"][m]["value"], target),
            "interval": interval(m, scores["metrics"][m], target),
        }
        for m in ("coverage", "width", "interval_score")
        if m in scores["metrics"]
    ]
    return {
        "target": target,
        "columns": [NAMES[m] for m in metrics],
        "rows": rows,
        "intervals": widths,
    }


def _gain(scores: Json, name: str) -> dict[str, str]:
    """Return what share of this forecast's loss the ensemble saves, and whether that is proven either way."""
    gain = scores["differences"].get(name, {}).get("gain", {"low": None})
    if gain["low"] is None:
        return {"value": "", "interval": "", "proven": ""}
    proven = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else ""
    shown = [f"{100 * gain[key]:+.1f}%" for key in ("value", "low", "high")]
    return {"value": shown[0], "interval": f"{shown[1]} … {shown[2]}", "proven": proven}


def trading_table(trading: Json) -> dict[str, Any]:
    """Return the table of financial scores: the ensemble with intervals, the others without."""
    ours = trading["metrics"]
    rows = [
        {
            "name": "ensemble",
            "kind": "ours",
            "cells": [(number(m, ours[m]["value"]), interval(m, ours[m])) for m in TRADING],
        }
    ]
    for name, values in trading["others"].items():
        cells = [(number(m, values[m]), "") for m in TRADING]
        rows.append({"name": FORECASTERS.get(name, name), "kind": "baseline", "cells": cells})
    return {"columns": [NAMES[m] for m in TRADING], "rows": rows}


def slice_tables(slices: Json) -> list[dict[str, Any]]:
    """Return skill by symbol and by year."""
    return [
        {
            "kind": kind,
            "rows": [
                {
                    "name": name,
                    "rows": part["rows"],
                    "cells": [(number(SKILL[t], part[t]["value"]), interval(SKILL[t], part[t])) for t in TARGETS],
                }
                for name, part in parts.items()
            ],
        }
        for kind, parts in slices.items()
    ]


def selection_table(selection: Json) -> list[dict[str, Any]]:
    """Return one row a target and model: its skill out of fold with all columns and with the chosen ones."""
    rows = []
    for target in (target for target in TARGETS if target in selection):
        found, metric = selection[target], SKILL[target]
        kept = f"{found['kept']} of {selection['columns']}"
        stable = found["stability_across"]["value"]
        for name, scores in found["models"].items():
            cells = [(number(metric, scores[k]["value"]), interval(metric, scores[k])) for k in ("before", "after")]
            gap, saved = scores["difference"], scores["loss_saved"]
            proven = "" if gap["low"] is None else "better" if gap["low"] > 0 else "worse" if gap["high"] < 0 else ""
            rows.append(
                {
                    "target": target,
                    "model": FORECASTERS.get(name, name),
                    "kept": kept,
                    "stability": "–" if stable is None else f"{stable:.2f}",
                    "metric": NAMES[metric],
                    "cells": cells,
                    "difference": (number(metric, gap["value"]), interval(metric, gap)),
                    "proven": proven,
                    "saved": "–" if saved["value"] is None else f"{100 * saved['value']:+.1f}%",
                }
            )
    return rows
