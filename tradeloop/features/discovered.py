"""Columns made of two others, by name: ``rsi_14__minus__sp500_return_1__lag2``.

The name is the definition, ``left__op__right`` with ``__lagN`` behind it where the right one is taken N bars ago, so
that whoever has the schema can compute the row. Both columns are first put on one scale, by where they stand among
their own last `WINDOW` values; z is the distance from their mean in standard deviations, r the rank in (0, 1]:

- ``minus``: z(left) − z(right)
- ``times``: z(left) · z(right)
- ``over``: z(left) / (1 + |z(right)|)
- ``above``: r(left) − r(right)

What to combine is found by `tradeloop.selection.discovery` and switched on in ``features.discovered``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.errors import ConfigError
from tradeloop.features.ordered import rank
from tradeloop.features.registry import FeatureSpec
from tradeloop.features.rolling import lag, moments

FAMILY = "discovered"
OPERATIONS = ("minus", "times", "over", "above")
SYMMETRIC = ("minus", "times", "above")
"""Operations that say the same, up to the sign, with left and right exchanged."""
WINDOW = 60

FAINT = 1e-6
"""A spread below this share of ``1 + |mean|`` counts for ever less: it may be rounding alone."""
_DIGITS = 9  # ranks must not order rounding errors
_PART = r"(?:(?!__)\w)+"
_NAME = re.compile(rf"^(?P<left>{_PART})__(?P<op>[a-z]+)__(?P<right>{_PART})(?:__lag(?P<lag>[1-9]\d*))?$")


def compose(left: str, op: str, right: str, bars: int = 0) -> str:
    """Return the column's name.

    Examples
    --------
    >>> compose("rsi_14", "minus", "return_1", 2)
    'rsi_14__minus__return_1__lag2'
    """
    return f"{left}__{op}__{right}" + (f"__lag{bars}" if bars else "")


def composed(name: str) -> bool:
    """Return whether a name has the form of these columns."""
    return _NAME.match(name) is not None


def discovered(names: Iterable[str], known: Iterable[FeatureSpec]) -> list[FeatureSpec]:
    """Return the columns of these names, which are made of `known` ones.

    Raises
    ------
    ConfigError
        A name has another form, or names an operation or a column that there is not.
    """
    parts = {spec.name: spec for spec in known}
    return [_spec(name, parts) for name in names]


def _spec(name: str, parts: dict[str, FeatureSpec]) -> FeatureSpec:
    match = _NAME.match(name)
    if match is None or match["op"] not in OPERATIONS:
        raise ConfigError(
            f"a discovered column is named left__op__right or left__op__right__lagN, op one of {list(OPERATIONS)}, "
            f"got {name!r}"
        )
    for side in ("left", "right"):
        if match[side] not in parts:
            raise ConfigError(f"discovered column {name!r}: the market has no feature {match[side]!r}")
    left, right, bars = parts[match["left"]], parts[match["right"]], int(match["lag"] or 0)
    before = f" {bars} bars before" if bars else ""
    return FeatureSpec(
        name=name,
        family=FAMILY,
        lookback=max(left.lookback, right.lookback + bars) + WINDOW - 1,
        doc=f"{left.name} {match['op']} {right.name}{before}, each against its own last {WINDOW} values.",
        kernel=partial(_combined, left=left, right=right, op=match["op"], ago=bars),
        module=__name__,
        recursive=left.recursive or right.recursive,
        intraday=left.intraday or right.intraday,
        context=left.context or right.context,
        needs=tuple(sorted({*left.needs, *right.needs})),
        scale_free=left.scale_free and right.scale_free,
        calendar=left.calendar or right.calendar,
        parts=tuple(sorted({left.module, right.module})),
    )


def _combined(bars: Bars, *, left: FeatureSpec, right: FeatureSpec, op: str, ago: int) -> Floats:
    place = _standing if op == "above" else _distance
    a, b = place(bars, left), place(bars, right)
    if ago:
        b = lag(b, ago)
    if op == "times":
        return a * b
    return a / (1.0 + np.abs(b)) if op == "over" else a - b


def _column(bars: Bars, spec: FeatureSpec) -> Floats:
    """Return a column as the row has it: nothing before its warm-up is over."""

    def make() -> Floats:
        values = np.array(spec.function(bars), dtype=np.float64)
        values[: spec.lookback - 1] = np.nan
        return values

    return bars.memo(f"column {spec.name}", make)


def _distance(bars: Bars, spec: FeatureSpec) -> Floats:
    """Distance from the mean of the last `WINDOW` values in standard deviations; towards 0 where these are flat."""

    def make() -> Floats:
        values = _column(bars, spec)
        mean, variance = moments(values, WINDOW)
        faint: Floats = FAINT * (1.0 + np.abs(mean))
        return np.asarray((values - mean) / np.sqrt(variance + faint**2))

    return bars.memo(f"distance {spec.name}", make)


def _standing(bars: Bars, spec: FeatureSpec) -> Floats:
    """Rank among the last `WINDOW` values, in (0, 1]; values that agree to nine decimals are equal."""
    return bars.memo(f"standing {spec.name}", lambda: rank(np.round(_column(bars, spec), _DIGITS), WINDOW))
