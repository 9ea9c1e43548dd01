"""Blocks of what is measured on live predictions: outcomes and performance."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from tradeloop.config.base import Block, Count, Share, parse_interval


class Regimes(Block):
    """The volatility regime of a bar: where its trailing volatility lies among those before it."""

    bars: Annotated[int, Field(ge=2)] = 20
    history: Annotated[int, Field(ge=2)] = 500
    warm_up: Annotated[int, Field(ge=1)] = 100
    low: Share = 0.25
    high: Share = 0.75

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"regimes.low must be below regimes.high = {self.high}, got {self.low}")
        if self.warm_up > self.history:
            raise ValueError(f"regimes.warm_up must be at most regimes.history = {self.history}, got {self.warm_up}")
        return self


class Outcomes(Block):
    """How predictions end. Intervals are ``15m``, ``1h`` or ``5d``."""

    expire_after: str = "30d"
    restate_within: str = "90d"
    regimes: Regimes = Regimes()

    @field_validator("expire_after", "restate_within")
    @classmethod
    def _interval(cls, value: str) -> str:
        parse_interval(value)
        return value


class Performance(Block):
    """Windows over resolved predictions, by count and by time."""

    counts: Annotated[list[Count], Field(min_length=1)] = [50, 200, 1000]
    spans: Annotated[list[str], Field(min_length=1)] = ["7d", "30d", "90d"]
    confidence: Share = 0.95
    every: Count = 50

    @field_validator("counts")
    @classmethod
    def _increasing(cls, value: list[int]) -> list[int]:
        if sorted(set(value)) != value:
            raise ValueError(f"performance.counts must increase, got {value}")
        return value

    @field_validator("spans")
    @classmethod
    def _spans(cls, value: list[str]) -> list[str]:
        lengths = [parse_interval(span) for span in value]
        if sorted(set(lengths)) != lengths:
            raise ValueError(f"performance.spans must increase, got {value}")
        return value
