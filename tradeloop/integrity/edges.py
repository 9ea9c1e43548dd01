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
        Its index says which row (or line) of its file each is.

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
        raise DataError(f"{shown}{_said(error.failure_cases, frame, schema)}") from None
    return checked.reset_index(drop=True)


@lru_cache(maxsize=8)
def _schema(edge: Edge) -> pa.DataFrameSchema:
    import pandera.pandas as pa

    def column(kind: str, *checks: Any) -> Any:
        return pa.Column(kind, list(checks), nullable=kind == "float64")

    def rule(holds: Any, text: str) -> Any:
        return pa.Check(holds, error=text, ignore_na=False)

    finite = rule(np.isfinite, "must be finite")
    increasing = rule(lambda times: ~(times.diff() <= pd.Timedelta(0)), "must increase strictly")
    steady = rule(lambda times: ~(times.diff() < pd.Timedelta(0)), "must not decrease")
    positive = rule(lambda values: ~(values <= 0), "must be positive")
    share = rule(lambda values: (values >= 0) & (values <= 100), "must be from 0 to 100")
    columns: dict[Edge, dict[str, Any]] = {
        "raw": {"timestamp": column(TIME), **{name: column("float64") for name in COLUMNS[1:]}},
        "context": {"timestamp": column(TIME, steady), "known_at": column(TIME, steady), "close": column("float64")},
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
        lambda frame: (frame["low"] <= frame[list(PRICES)].min(axis=1))
        & (frame["high"] >= frame[list(PRICES)].max(axis=1)),
        "open and close must lie within low to high",
    )
    return pa.DataFrameSchema(columns[edge], checks=[inside] if edge == "clean" else [], strict="filter")
