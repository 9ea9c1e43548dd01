"""What every block of params.yaml is made of: a frozen base, the constrained numbers, intervals of time."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Target = Literal["direction", "return", "range"]
ModelName = Literal["random_forest", "xgboost", "mlp"]
RangeBaseline = Literal["mean", "previous", "ewma", "har"]
TARGETS: tuple[Target, ...] = get_args(Target)
MODELS: tuple[ModelName, ...] = get_args(ModelName)

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

_INTERVAL = re.compile(r"^(\d+)(m|h|d)$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_interval(text: str) -> timedelta:
    """Return the span that ``15m``, ``1h`` or ``5d`` names.

    Examples
    --------
    >>> parse_interval("15m")
    datetime.timedelta(seconds=900)
    """
    match = _INTERVAL.match(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"an interval is a positive whole number and m, h or d (15m, 1h, 5d), got {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _interval(text: str) -> str:
    parse_interval(text)
    return text


Span = Annotated[str, AfterValidator(_interval)]


class Block(BaseModel):
    """Base of every block: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
