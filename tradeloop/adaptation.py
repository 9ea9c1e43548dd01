"""What was learned since training, as numbers laid over a packaged ensemble: the loop learns them, the service applies.

A snapshot is JSON; `NEUTRAL` changes nothing. For each target the stacked forecast ``f`` (in log odds for direction)
is mixed with what the bundle's members said and with a linear member that went on learning::

    z = f + Σ weight · (member − f) + weight of online · u · clip(online)
    online = bias + tilt · f / u + Σ coefficient · clip((x − mean) / scale)

with ``u`` the target's unit: 1 for log odds, half the packaged interval's width for return and range. What the weights
leave to one stays with the packaged forecast. Then

direction
    ``p = sigmoid(slope · z + intercept)``;
return, range
    ``z + intercept · u``, and each end of the interval keeps its distance from the centre but for ``(width − 1) · u``.

The targets don't touch each other: what is learned of one can be applied, and taken back, without the others. Whatever
a snapshot holds, it can move a forecast only so far: see the bounds below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Block, Target
from tradeloop.config.explain import explain
from tradeloop.ensemble import Forecast, Spec, logit, sigmoid
from tradeloop.errors import AdaptationError

ONLINE = "online"
"""The name of the linear member among the weights."""

SLOPE: Final = (0.0, 3.0)
CALIBRATION: Final = 1.0  # log odds
SHIFT: Final = 1.5  # units
WIDTH: Final = (0.25, 4.0)
COST: Final = 1000.0  # basis points
REACH: Final = 1.0  # units: how far the linear member may lie from the packaged forecast
STANDARD: Final = 5.0  # standard deviations: features count no more than that

_Weight = Annotated[float, Field(ge=0, le=1)]
_Width = Annotated[float, Field(ge=WIDTH[0], le=WIDTH[1])]
_Shift = Annotated[float, Field(ge=-SHIFT, le=SHIFT)]
_Coefficient = Annotated[float, Field(ge=-10, le=10)]


class Scaler(Block):
    """Means and standard deviations of the features (d,), in schema order."""

    means: list[float]
    scales: list[Annotated[float, Field(gt=0)]]


class Online(Block):
    """The linear member, as its distance from the packaged forecast: see the module."""

    coefficients: list[_Coefficient]
    tilt: _Coefficient = 0.0
    bias: Annotated[float, Field(ge=-100, le=100)] = 0.0


class _Part(Block):
    weights: dict[str, _Weight] = Field(default_factory=dict)
    online: Online | None = None

    @field_validator("weights")
    @classmethod
    def _sum(cls, value: dict[str, float]) -> dict[str, float]:
        if sum(value.values()) > 1 + 1e-9:
            raise ValueError(f"weights may sum to at most 1, got {sum(value.values()):.6g}")
        return value


class DirectionPart(_Part):
    """Weights by member, and the recalibration of the log odds."""

    slope: Annotated[float, Field(ge=SLOPE[0], le=SLOPE[1])] = 1.0
    intercept: Annotated[float, Field(ge=-CALIBRATION, le=CALIBRATION)] = 0.0


class ValuePart(_Part):
    """Weights by member, a shift in units, and what the interval's sides are multiplied by."""

    intercept: _Shift = 0.0
    low: _Width = 1.0
    high: _Width = 1.0


class _Targets(Block):
    direction: DirectionPart = DirectionPart()
    ret: ValuePart = Field(default=ValuePart(), alias="return")
    range: ValuePart = ValuePart()


class Content(Block):
    """A snapshot as JSON holds it.

    Attributes
    ----------
    cost_bps
        What a trade has turned out to cost one way; raises the hurdle of the bundle, never lowers it.
    """

    format: Literal[1] = 1
    scaler: Scaler | None = None
    targets: _Targets = _Targets()
    cost_bps: Annotated[float, Field(ge=0, le=COST)] | None = None


NEUTRAL: Final = Content()


@dataclass(frozen=True)
class Adaptation:
    """A validated snapshot; stateless, so any number of threads may share it."""

    content: Content

    @classmethod
    def parse(cls, content: Any, *, spec: Spec | None = None) -> Self:
        """Validate a snapshot.

        Parameters
        ----------
        content
            Parsed JSON.
        spec
            The ensemble that it is for: its members and the number of its features must fit.

        Raises
        ------
        AdaptationError
            One line that names the key and the rule; the bundle is then to be used as it was packaged.
        """
        try:
            parsed = cls(Content.model_validate(content))
        except ValidationError as error:
            raise AdaptationError(f"adaptation refused: {explain(error, Content).removeprefix(': ')}") from None
        parsed._whole()
        if spec is not None:
            parsed.require(spec)
        return parsed

    @property
    def cost_bps(self) -> float | None:
        """Realised cost of a trade one way, in basis points; None if nothing is known of it."""
        return self.content.cost_bps

    @cached_property
    def neutral(self) -> bool:
        """Whether forecasts stay as they are."""
        return self.content.targets == NEUTRAL.targets

    def to_dict(self) -> dict[str, Any]:
        """Return what `parse` takes."""
        return self.content.model_dump(mode="json", by_alias=True)

    def require(self, spec: Spec) -> None:
        """Raise AdaptationError unless the snapshot fits the ensemble that `spec` specifies."""
        width = len(spec["schema"]["names"])
        if self.content.scaler is not None and len(self.content.scaler.means) != width:
            raise AdaptationError(
                f"adaptation refused: it is for {len(self.content.scaler.means)} features, the bundle has {width}"
            )
        for target in TARGETS:
            known = {*spec["targets"][target]["members"], ONLINE}
            if unknown := sorted(set(self._part(target).weights) - known):
                raise AdaptationError(
                    f"adaptation refused: {target} has no member {unknown[0]!r} (known: {', '.join(sorted(known))})"
                )

    def apply(self, forecast: Forecast, x: NDArray[np.float32]) -> Forecast:
        """Return the forecasts of n rows as they are with what was learned.

        Parameters
        ----------
        forecast
            The packaged ensemble's; NaN rows stay NaN.
        x
            The feature rows that it was made from (n, d).
        """
        if self.neutral:
            return forecast
        scaled = self._scaled(x)
        ret, ret_low, ret_high = self._value(
            "return", forecast, (forecast.ret, forecast.ret_low, forecast.ret_high), scaled
        )
        log_range, range_low, range_high = self._value(
            "range", forecast, (forecast.range, forecast.range_low, forecast.range_high), scaled
        )
        p_up = self._p_up(forecast, scaled)
        return Forecast(p_up, ret, ret_low, ret_high, log_range, range_low, range_high, forecast.members)

    def _p_up(self, forecast: Forecast, scaled: Floats | None) -> Floats:
        part = self.content.targets.direction
        if part == NEUTRAL.targets.direction:
            return forecast.p_up  # a logit and back would keep p off 0 and 1
        base, said = logit(forecast.p_up), forecast.members["direction"]
        members = {name: logit(said[name]) for name in part.weights if name != ONLINE}
        z = self._mixed("direction", base, members, unit=1.0, scaled=scaled)
        return sigmoid(part.slope * z + part.intercept)

    def _value(
        self, target: Target, forecast: Forecast, centre_and_ends: tuple[Floats, Floats, Floats], scaled: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        """Return centre, low and high end."""
        part = self._values(target)
        if part == NEUTRAL.targets.range:
            return centre_and_ends
        base, low, high = centre_and_ends
        unit = 0.5 * (high - low)
        moved = self._mixed(target, base, forecast.members[target], unit=unit, scaled=scaled) + part.intercept * unit
        shift = moved - base
        return moved, low + shift - (part.low - 1.0) * unit, high + shift + (part.high - 1.0) * unit

    def _mixed(
        self,
        target: Target,
        base: Floats,
        members: Mapping[str, Floats],
        *,
        unit: Floats | float,
        scaled: Floats | None,
    ) -> Floats:
        mixed = base.copy()
        for name, weight in self._part(target).weights.items():
            if name == ONLINE:
                apart = self._online(target, base / unit, scaled)
                mixed += weight * unit * np.minimum(np.maximum(apart, -REACH), REACH)
            else:
                mixed += weight * (members[name] - base)
        return mixed

    def _online(self, target: Target, base: Floats, scaled: Floats | None) -> Floats:
        online = self._part(target).online
        assert online is not None and scaled is not None
        # Not a matrix product, whose order of summation depends on how many rows there are.
        learned: Floats = (scaled * self._coefficients[target]).sum(axis=1)
        return online.bias + online.tilt * base + learned

    def _scaled(self, x: NDArray[np.float32]) -> Floats | None:
        if self._statistics is None:
            return None
        means, scales = self._statistics
        return np.asarray(np.minimum(np.maximum((x - means) / scales, -STANDARD), STANDARD))

    @cached_property
    def _statistics(self) -> tuple[Floats, Floats] | None:
        scaler = self.content.scaler
        return None if scaler is None else (np.asarray(scaler.means), np.asarray(scaler.scales))

    @cached_property
    def _coefficients(self) -> dict[Target, Floats]:
        linear = {target: self._part(target).online for target in TARGETS}
        return {target: np.asarray(online.coefficients) for target, online in linear.items() if online is not None}

    def _part(self, target: Target) -> DirectionPart | ValuePart:
        targets = self.content.targets
        return targets.direction if target == "direction" else self._values(target)

    def _values(self, target: Target) -> ValuePart:
        return self.content.targets.range if target == "range" else self.content.targets.ret

    def _whole(self) -> None:
        """Raise AdaptationError unless the scaler and the linear members have one width."""
        scaler = self.content.scaler
        width = None if scaler is None else len(scaler.means)
        if scaler is not None and len(scaler.scales) != width:
            raise AdaptationError(f"adaptation refused: {width} means, but {len(scaler.scales)} scales")
        for target in TARGETS:
            part = self._part(target)
            if part.online is not None and len(part.online.coefficients) != width:
                given = len(part.online.coefficients)
                raise AdaptationError(
                    f"adaptation refused: {target}.online has {given} coefficients for {width} features"
                )
            if ONLINE in part.weights and part.online is None:
                raise AdaptationError(f"adaptation refused: {target} gives a weight to a linear member that it lacks")
