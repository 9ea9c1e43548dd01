"""The feature registry: a tagged function is a feature; its name is the column, its docstring the definition."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from tradeloop.bars import Bars, Floats
from tradeloop.errors import ConfigError

Kernel = Callable[[Bars], "Floats | tuple[Floats, ...]"]
Lookback = int | Callable[..., int]
Function = TypeVar("Function", bound=Callable[..., "Floats | tuple[Floats, ...]"])


DAY = timedelta(days=1)
ANY = "series"
"""Stands for a context series where no market is meant: ``series_beta_60``."""


@dataclass(frozen=True)
class Timeframe:
    """A span of time that bars are gathered into.

    Attributes
    ----------
    name
        As columns have it: ``4h``.
    span
        Its length.
    bars
        Base bars in one of them, at most.
    """

    name: str
    span: timedelta
    bars: int


@dataclass(frozen=True)
class Sessions:
    """When a market trades.

    Attributes
    ----------
    calendar
        As `tradeloop.calendars` knows it.
    bars
        Bars of a session, at most: those of a whole day.
    """

    calendar: str
    bars: int


TIMEFRAMES = {
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": DAY,
    "1w": timedelta(weeks=1),
}


def timeframes(names: Iterable[str], interval: timedelta) -> list[Timeframe]:
    """Return those of the named timeframes that bars of `interval` can be gathered into, shortest first.

    Longer ones than a day are gathered from daily bars only: of shorter ones, a dozen weeks are months of warm-up.

    Examples
    --------
    >>> [frame.name for frame in timeframes(TIMEFRAMES, timedelta(hours=1))]
    ['4h', '1d']
    """
    return [
        Timeframe(name, TIMEFRAMES[name], TIMEFRAMES[name] // interval)
        for name in sorted(names, key=TIMEFRAMES.__getitem__)
        if TIMEFRAMES[name] > interval
        and not TIMEFRAMES[name] % interval
        and TIMEFRAMES[name] <= max(DAY, 7 * interval)
    ]


@dataclass(frozen=True)
class FeatureSpec:
    """One column of the feature row.

    Attributes
    ----------
    name
        The column's name.
    family
        The module that defines it.
    lookback
        Bars, the current one included, that decide the value; rows before that many are warm-up, and NaN.
    doc
        Definition, on one line.
    kernel
        Pure function of bars that yields this column, and maybe others that share its work.
    module
        Full name of the module, whose code is part of the schema's hash.
    column
        Position of this column among the kernel's.
    recursive
        The value also depends, by less than 1e-6 relative, on older bars. False: on none, to the last bit.
    intraday
        Only for markets whose interval is shorter than a day.
    context
        The context series that it reads, if any.
    needs
        Columns of `Bars.inputs` that it reads.
    scale_free
        Unchanged by the price's and the volume's scale; False only where a foreign definition wants it so.
    calendar
        The trading calendar that it reads, if any.
    parts
        Full names of the modules of the columns that it is made of, if it is made of others.
    """

    name: str
    family: str
    lookback: int
    doc: str
    kernel: Kernel
    module: str
    column: int = 0
    recursive: bool = False
    intraday: bool = False
    context: str | None = None
    needs: tuple[str, ...] = ()
    scale_free: bool = True
    calendar: str | None = None
    parts: tuple[str, ...] = ()

    @property
    def general(self) -> str:
        """Its name on any market: `ANY` stands for the context series."""
        if self.context is None:
            return self.name
        return f"{ANY}_{self.name.removeprefix(column_prefix(self.context) + '_')}"

    def pick(self, values: Floats | tuple[Floats, ...]) -> Floats:
        """Return this column of what the kernel returned."""
        return values[self.column] if isinstance(values, tuple) else values

    def function(self, bars: Bars) -> Floats:
        """Return the column for `bars`, float64 of length n."""
        return self.pick(self.kernel(bars))


@dataclass(frozen=True)
class _Definition:
    """A tagged function, before windows, timeframes and context series multiply it into columns."""

    function: Callable[..., Floats | tuple[Floats, ...]]
    lookback: Lookback
    windows: tuple[int, ...]
    columns: tuple[str, ...]
    recursive: bool
    intraday: bool
    per_context: bool
    per_timeframe: tuple[str, ...]
    needs: tuple[str, ...]
    scale_free: bool
    per_session: bool

    @property
    def family(self) -> str:
        return self.function.__module__.rpartition(".")[2]

    def specs(self, context: Sequence[str], interval: timedelta, calendar: str) -> Iterable[FeatureSpec]:
        """Return the columns, in the order context series, timeframe, window."""
        frames: Sequence[Timeframe | None] = timeframes(self.per_timeframe, interval) if self.per_timeframe else [None]
        sessions = Sessions(calendar, max(DAY // interval, 1)) if self.per_session else None
        for series in context if self.per_context else (None,):
            for frame in frames:
                for window in self.windows or (None,):
                    yield from self._columns(series, frame, window, sessions)

    def _columns(
        self, series: str | None, frame: Timeframe | None, window: int | None, sessions: Sessions | None
    ) -> Iterable[FeatureSpec]:
        given = {"series": series, "timeframe": frame, "window": window, "sessions": sessions}
        kernel = partial(self.function, **{name: value for name, value in given.items() if value is not None})
        base = self.function.__name__.rstrip("_")
        front = "" if series is None else f"{column_prefix(series)}_"
        back = ("" if window is None else f"_{window}") + ("" if frame is None else f"_{frame.name}")
        for position, column in enumerate(self.columns or (base,)):
            yield FeatureSpec(
                name=f"{front}{column}{back}",
                family=self.family,
                lookback=self._lookback(window, *(span.bars for span in (frame, sessions) if span)),
                doc=self._doc(given),
                kernel=kernel,
                module=self.function.__module__,
                column=position,
                recursive=self.recursive,
                intraday=self.intraday,
                context=series,
                needs=self.needs,
                scale_free=self.scale_free,
                calendar=sessions.calendar if sessions else None,
            )

    def _lookback(self, *sizes: int | None) -> int:
        if isinstance(self.lookback, int):
            return self.lookback
        return self.lookback(*(size for size in sizes if size is not None))

    def _doc(self, given: dict[str, Any]) -> str:
        text = " ".join((self.function.__doc__ or "").split())
        for name, value in given.items():
            if value is not None:
                text = text.replace(f"`{name}`", value.name if isinstance(value, Timeframe) else str(value))
        return text


_definitions: list[_Definition] = []


def feature(
    *,
    lookback: Lookback,
    windows: tuple[int, ...] = (),
    columns: tuple[str, ...] = (),
    recursive: bool = False,
    intraday: bool = False,
    per_context: bool = False,
    per_timeframe: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    scale_free: bool = True,
    per_session: bool = False,
) -> Callable[[Function], Function]:
    """Register a pure function of bars as a feature; the function itself is returned unchanged.

    Parameters
    ----------
    lookback
        Bars needed, the current one included; with `windows`, a function of the window; with `per_timeframe`, of the
        base bars in one higher bar, after the window if there is one.
    windows
        The function takes ``window`` and becomes one column a window: ``return_`` with (5, 20) gives ``return_5``
        and ``return_20``.
    columns
        The function returns a tuple of columns with these names, instead of one with its own.
    recursive, intraday, scale_free
        See `FeatureSpec`.
    per_context
        The function takes ``series``, the name of a context series, and becomes one column for each, the series'
        name in front: ``sp500_beta_60``.
    per_timeframe
        The function takes ``timeframe`` and becomes one column for each of these (of `TIMEFRAMES`) that the market's
        bars can be gathered into, its name behind: ``rsi_14_4h``.
    needs
        Columns of `Bars.inputs` that it reads; only markets that have them have the feature.
    per_session
        The function takes ``sessions``, when the market trades; a function as `lookback` takes its bars, too.
    """

    def register(function: Function) -> Function:
        definition = _Definition(
            function,
            lookback,
            windows,
            columns,
            recursive,
            intraday,
            per_context,
            per_timeframe,
            needs,
            scale_free,
            per_session,
        )
        if unknown := [name for name in per_timeframe if name not in TIMEFRAMES]:
            raise TypeError(
                f"feature {function.__name__}: a timeframe is one of {list(TIMEFRAMES)}, got {unknown[0]!r}"
            )
        if not function.__doc__:
            raise TypeError(f"feature {function.__name__} needs a docstring: it is the definition")
        _definitions.append(definition)
        return function

    return register


def column_prefix(context: str) -> str:
    """Return how the columns of a context series begin.

    Examples
    --------
    >>> column_prefix("BRK-B")
    'brk_b'
    """
    return re.sub(r"[^a-z0-9]", "_", context.lower())


def families() -> tuple[str, ...]:
    """Return the names of all families, in canonical order."""
    return tuple(dict.fromkeys(definition.family for definition in _definitions))


def registered(
    chosen: Sequence[str] | None = None,
    *,
    context: Sequence[str] = (),
    interval: timedelta = timedelta(minutes=1),
    inputs: Collection[str] | None = None,
    calendar: str = "24/7",
) -> list[FeatureSpec]:
    """Return the features of the `chosen` families (default: all), in canonical order.

    The order is that of definition, whatever the order in `chosen`.

    Parameters
    ----------
    chosen
        Names of families.
    context
        Context series to make the per-context features for.
    interval
        Of the market's bars: decides the timeframes, and whether features that only shorter intervals than a day have
        are among them. The default has them all.
    inputs
        Columns of data beyond bars that the market has; None: all that any feature reads.
    calendar
        When the market trades.

    Raises
    ------
    ConfigError
        A family is not known, or two columns would have one name.
    """
    known = families()
    for family in chosen or ():
        if family not in known:
            close = difflib.get_close_matches(family, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"features.families may name {list(known)}, got {family!r}{hint}")
    specs: list[FeatureSpec] = []
    for definition in _definitions:
        if (
            (chosen is None or definition.family in chosen)
            and (interval < DAY or not definition.intraday)
            and (inputs is None or all(name in inputs for name in definition.needs))
        ):
            specs.extend(definition.specs(context, interval, calendar))
    if doubles := sorted(name for name, count in Counter(spec.name for spec in specs).items() if count > 1):
        given = f"context {list(context)}"
        raise ConfigError(f"each feature needs a name of its own, {doubles[0]!r} is taken twice ({given})")
    return specs


def needed(chosen: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the columns of `Bars.inputs` that features of the `chosen` families (default: all) read, sorted."""
    return tuple(sorted({name for spec in registered(chosen, context=["any"]) for name in spec.needs}))
