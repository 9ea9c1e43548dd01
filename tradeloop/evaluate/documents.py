"""What evaluate writes: a compact metrics.json for `dvc metrics diff`, and the tables behind the plots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import TIME, Times
from tradeloop.config import TARGETS
from tradeloop.evaluate.holdout import Holdout
from tradeloop.metrics.calibration import reliability
from tradeloop.metrics.primary import SKILL

DIGITS = 6
TRADING = ("sharpe", "sortino", "total_return", "max_drawdown", "profit_factor", "hit_rate", "turnover")

Json = dict[str, Any]


def compact(evaluation: Json) -> Json:
    """Return the numbers that a person compares between runs, rounded; skill and Sharpe with their interval's ends."""
    result: Json = {"holdout": {"rows": evaluation["holdout"]["rows"]}}
    for target in TARGETS:
        part = evaluation["targets"][target]
        scores = {name: score["value"] for name, score in part["metrics"].items()}
        skill = part["metrics"][SKILL[target]]
        scores |= {f"{SKILL[target]}_{end}": skill[end] for end in ("low", "high")}
        scores |= {f"gain_over_{name}": part["differences"][name]["gain"]["value"] for name in part["baselines"]}
        result[target] = scores | {"edge_proven": int(part["edge"]["proven"])}
    trading = evaluation["trading"]
    result["trading"] = {name: trading["metrics"][name]["value"] for name in TRADING}
    result["trading"] |= {f"sharpe_{end}": trading["metrics"]["sharpe"][end] for end in ("low", "high")}
    result["trading"]["deflated_sharpe"] = trading["deflated_sharpe"]
    result["controls"] = {control["name"]: int(control["passed"]) for control in evaluation["controls"]}
    return {group: {name: _rounded(value) for name, value in values.items()} for group, values in result.items()}


def _rounded(value: float | None) -> float | int | None:
    return value if value is None or isinstance(value, int) else round(float(value), DIGITS)


def holdout_frame(holdout: Holdout) -> pd.DataFrame:
    """Return row (in the matrix), symbol, timestamp, label_end, forecasts (range in log) and labels of the holdout."""
    forecast = holdout.forecast
    columns = ("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high")
    return pd.DataFrame(
        {
            "row": holdout.row.astype(np.int64),
            "symbol": holdout.symbol.astype(str),
            "timestamp": utc(holdout.timestamp),
            "label_end": utc(holdout.sample.label_end[holdout.row]),
            **{name: getattr(forecast, name) for name in columns},
            **{f"label_{target}": holdout.label(target) for target in TARGETS},
        }
    )


def reliability_frame(holdout: Holdout) -> pd.DataFrame:
    """Return ``bin`` (1 the lowest), ``mean_p``, ``frequency`` and ``count`` of the direction forecast."""
    diagram = reliability(holdout.label("direction"), holdout.forecast.p_up)
    bins = np.arange(1, len(diagram.count) + 1)
    return pd.DataFrame({"bin": bins, "mean_p": diagram.mean_p, "frequency": diagram.frequency, "count": diagram.count})


def range_frame(holdout: Holdout) -> pd.DataFrame:
    """Return timestamp, symbol, and volatility a bar as fractions: ``forecast``, ``low``, ``high`` and ``realised``."""
    forecast = holdout.forecast
    return pd.DataFrame(
        {
            "timestamp": holdout.timestamp,
            "symbol": holdout.symbol.astype(str),
            "forecast": np.exp(forecast.range),
            "low": np.exp(forecast.range_low),
            "high": np.exp(forecast.range_high),
            "realised": np.exp(holdout.label("range")),
        }
    )


def csv(frame: pd.DataFrame) -> bytes:
    """Return the frame as CSV: times as ISO 8601 in UTC, numbers with nine significant digits."""
    shown = frame.copy()
    for name in shown.columns:
        if pd.api.types.is_datetime64_any_dtype(shown[name]):
            shown[name] = shown[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return bytes(shown.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())


def utc(times: Times) -> pd.Series[pd.Timestamp]:
    """Return times without zone, UTC by convention, as a column that says so."""
    return pd.Series(pd.Series(times).dt.tz_localize("UTC").astype(TIME))
