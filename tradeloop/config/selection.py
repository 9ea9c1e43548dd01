"""Which columns a model may read, and the search for new ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tradeloop.config.base import Block, Count, ModelName, Share


class Selection(Block):
    """Columns chosen inside each fold; see `tradeloop.selection`."""

    method: Literal["none", "clusters", "ranked"] = "none"
    constant: Share = 0.99
    correlation: Share = 0.95
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.6
    compare: list[ModelName] = ["xgboost"]


class Discovery(Block):
    """The search for columns made of two others; 0 trials: none."""

    trials: Annotated[int, Field(ge=0)] = 0
    lags: Annotated[int, Field(ge=0)] = 3
    validation: Share = 0.4
    shortlist: Count = 20
    alpha: Share = 0.01
    keep: Count = 5


class Discovered(Block):
    """Columns that a search found and a person switched on, and how many were tried to find them."""

    columns: list[str] = []
    trials: Annotated[int, Field(ge=0)] = 0
