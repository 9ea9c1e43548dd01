"""What a file between two stages must be, as pandera schemas: raw bars go into the check, clean ones come out of it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, CONTEXT_COLUMNS, PRICES, TIME
from tradeloop.config import MARKS
from tradeloop.errors import DataError

if TYPE_CHECKING:
    import pandera.pandas as pa

Edge = Literal["raw", "context", "clean", "days", "marks"]


def require(edge: Edge, frame: pd.DataFrame, *, shown: str) -> pd.DataFrame:
    """Return the edge's columns of a frame that is as its schema says; others are left out.

    Parameters
    ----------
    frame
        Its index says which row each is, and its index' name what to call it.

    Raises
    ------
    DataError
        Naming file, row, column and rule of the first breach, and how many rows break it.
    """
    from pandera.errors import SchemaErrors  # 0.3 s, which only the check stage pays

    schema = _schema(edge)
    try:
        checked = schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        raise DataError(f"{shown}{_said(error.failure_cases, frame)}") from None
    return checked.reset_index(drop=True)


def _said(failures: pd.DataFrame, frame: pd.DataFrame) -> str:
    """Return the first breach of a schema as a person reads it."""
    missing = failures[failures["check"] == "column_in_dataframe"]
    if len(missing):
        return f": column {missing['failure_case'].iloc[0]!r} is missing"
    kinds = failures[failures["check"].str.startswith("dtype(")]
    if len(kinds):
        name = kinds["column"].iloc[0]
        return f": {name} must be {kinds['check'].iloc[0][7:-2]}, got {frame[name].dtype}"
    first = failures.sort_values("index", kind="stable").iloc[0]
    whole = first["schema_context"] == "DataFrameSchema"
    alike = (failures["check"] == first["check"]) & (whole | (failures["column"] == first["column"]))
    rule = "must not be missing" if first["check"] == "not_nullable" else first["check"]
    count = failures.loc[alike, "index"].nunique()
    named = rule if whole else f"{first['column']} {rule}"
    return f" {frame.index.name or 'row'} {first['index']}: {named}; {count} such rows"


@lru_cache(maxsize=8)
def _schema(edge: Edge) -> pa.DataFrameSchema:
    import pandera.pandas as pa

    def column(kind: str, *checks: Any) -> Any:
        return pa.Column(kind, list(checks), nullable=kind == "float64")

    def rule(holds: Any, text: str) -> Any:
        return pa.Check(holds, error=text, ignore_na=False)

    finite = rule(np.isfinite, "must be finite")
    increasing = rule(lambda times: ~(times.diff() <= pd.Timedelta(0)), "must increase strictly")
    positive = rule(lambda values: ~(values <= 0), "must be positive")
    share = rule(lambda values: (values >= 0) & (values <= 100), "must be from 0 to 100")
    columns: dict[Edge, dict[str, Any]] = {
        "raw": {"timestamp": column(TIME), **{name: column("float64") for name in COLUMNS[1:]}},
        "context": {name: column("float64" if name == "close" else TIME) for name in CONTEXT_COLUMNS},
        "clean": {
            "timestamp": column(TIME, increasing),
            **{name: column("float64", finite, positive) for name in PRICES},
            "volume": column("float64", finite, rule(lambda v: ~(v < 0), "must not be negative")),
        },
        "days": {
            "symbol": column("object"),
            "day": column("datetime64[us]"),
            **{name: column(TIME) for name in ("start", "end")},
            **{name: column("int64") for name in ("bars", "missing")},
            "score": column("float64", share),
            "admitted": column("bool"),
        },
        "marks": {
            "symbol": column("object"),
            "time": column(TIME),
            "rule": column("object", rule(lambda names: names.isin(MARKS), f"must be one of {list(MARKS)}")),
        },
    }
    inside = rule(
        lambda frame: (
            (frame["low"] <= frame[list(PRICES)].min(axis=1)) & (frame["high"] >= frame[list(PRICES)].max(axis=1))
        ),
        "open and close must lie within low to high",
    )
    return pa.DataFrameSchema(columns[edge], checks=[inside] if edge == "clean" else [], strict="filter")
