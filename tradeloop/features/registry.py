"""The feature registry: a tagged function is a feature; its name is the column, its docstring the definition."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tradeloop.bars import Bars, Floats
from tradeloop.errors import ConfigError

Kernel = Callable[[Bars], "Floats | tuple[Floats, ...]"]
Lookback = int | Callable[[int], int]
Function = TypeVar("Function", bound=Callable[..., "Floats | tuple[Floats, ...]"])


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

    def pick(self, values: Floats | tuple[Floats, ...]) -> Floats:
        """Return this column of what the kernel returned."""
        return values[self.column] if isinstance(values, tuple) else values

    def function(self, bars: Bars) -> Floats:
        """Return the column for `bars`, float64 of length n."""
        return self.pick(self.kernel(bars))


@dataclass(frozen=True)
class _Definition:
    """A tagged function, before windows and context series multiply it into columns."""

    function: Callable[..., Floats | tuple[Floats, ...]]
    lookback: Lookback
    windows: tuple[int, ...]
    columns: tuple[str, ...]
    recursive: bool
    intraday: bool
    per_context: bool

    @property
    def family(self) -> str:
        return self.function.__module__.rpartition(".")[2]

    def specs(self, context: str | None) -> Iterable[FeatureSpec]:
        """Return the columns, for one context series if the function reads one."""
        base = self.function.__name__.rstrip("_")
        for window in self.windows or (None,):
            given = {} if window is None else {"window": window}
            kernel = partial(self.function, **given, **({} if context is None else {"series": context}))
            for position, column in enumerate(self.columns or (base,)):
                name = column if window is None else f"{column}_{window}"
                yield FeatureSpec(
                    name=name if context is None else f"{column_prefix(context)}_{name}",
                    family=self.family,
                    lookback=self.lookback if isinstance(self.lookback, int) else self.lookback(window or 0),
                    doc=self._doc(window, context),
                    kernel=kernel,
                    module=self.function.__module__,
                    column=position,
                    recursive=self.recursive,
                    intraday=self.intraday,
                    context=context,
                )

    def _doc(self, window: int | None, context: str | None) -> str:
        text = " ".join((self.function.__doc__ or "").split())
        text = text if window is None else text.replace("`window`", str(window))
        return text if context is None else text.replace("`series`", context)


_definitions: list[_Definition] = []


def feature(
    *,
    lookback: Lookback,
    windows: tuple[int, ...] = (),
    columns: tuple[str, ...] = (),
    recursive: bool = False,
    intraday: bool = False,
    per_context: bool = False,
) -> Callable[[Function], Function]:
    """Register a pure function of bars as a feature; the function itself is returned unchanged.

    Parameters
    ----------
    lookback
        Bars needed, the current one included; with `windows`, a function of the window.
    windows
        The function takes ``window`` and becomes one column a window: ``return_`` with (5, 20) gives ``return_5``
        and ``return_20``.
    columns
        The function returns a tuple of columns with these names, instead of one with its own.
    recursive, intraday
        See `FeatureSpec`.
    per_context
        The function takes ``series``, the name of a context series, and becomes one column for each, the series'
        name in front: ``sp500_beta_60``.
    """

    def register(function: Function) -> Function:
        definition = _Definition(function, lookback, windows, columns, recursive, intraday, per_context)
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
    chosen: Sequence[str] | None = None, *, context: Sequence[str] = (), intraday: bool = True
) -> list[FeatureSpec]:
    """Return the features of the `chosen` families (default: all), in canonical order.

    The order is that of definition, whatever the order in `chosen`.

    Parameters
    ----------
    chosen
        Names of families.
    context
        Context series to make the per-context features for.
    intraday
        Whether to include the features that only markets with an interval below a day have.

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
        if (chosen is not None and definition.family not in chosen) or (definition.intraday and not intraday):
            continue
        for series in context if definition.per_context else (None,):
            specs.extend(definition.specs(series))
    names = [spec.name for spec in specs]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"each feature needs a name of its own, {doubles[0]!r} is taken twice (context {context})")
    return specs


def max_lookback(chosen: Sequence[str] | None = None) -> int:
    """Return how many bars, the newest included, decide a feature row of the `chosen` families (default: all)."""
    return max(spec.lookback for spec in registered(chosen, context=["any"]))
