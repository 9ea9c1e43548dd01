"""The markets: which series, from where, on which calendar."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tradeloop.config.base import Block, Count, parse_interval
from tradeloop.config.inputs import InputFiles, InputKind


class SyntheticMarket(Block):
    """What `sources.synthetic` plants; see its docstring for the generating equations."""

    bars: Count = 80_000
    bayes_accuracy: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    regimes: bool = False
    drift_bar: int | None = Field(default=None, ge=1)
    drift: Literal["sign_flip", "fading_edge", "new_regime", "volatility_jump"] = "sign_flip"
    start: datetime = datetime.fromisoformat("2000-01-03T00:00:00+00:00")


class FileMarket(Block):
    """Where `sources.files` finds its files and what their columns are called.

    `timestamp_format` is a strptime format, or ``s``, ``ms`` or ``us`` for numbers since 1970; null means ISO 8601.
    """

    path: str
    context_path: str | None = None
    timestamp: str = "timestamp"
    timestamp_format: str | None = None
    stamped_at: Literal["open", "close"] = "close"
    timezone: str = "UTC"
    columns: dict[Literal["open", "high", "low", "close", "volume", "adj_close"], str] = {}


class Market(Block):
    """One market: which series, from where, on which calendar."""

    source: Literal["bundled", "files", "synthetic"]
    symbols: Annotated[list[str], Field(min_length=1)]
    context: list[str] = []
    calendar: str
    interval: str
    clock: Literal["live", "replay"] = "replay"
    max_age: str = "5d"
    files: FileMarket | None = None
    inputs: dict[InputKind, InputFiles] = {}
    synthetic: SyntheticMarket = SyntheticMarket()

    @field_validator("interval", "max_age")
    @classmethod
    def _interval(cls, value: str) -> str:
        parse_interval(value)
        return value

    @field_validator("symbols", "context")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", name):
                raise ValueError(f"a symbol is 1 to 32 letters, digits, '_', '.' or '-', got {name!r}")
        if len(set(value)) != len(value):
            raise ValueError(f"each symbol may be named once, got {value}")
        return value

    @model_validator(mode="after")
    def _files(self) -> Self:
        if self.source == "files" and self.files is None:
            raise ValueError("source: files needs a files: block that says where they are")
        return self
