"""The kinds of data beyond bars: the columns of their files, each with its unit and rule, and what bars get from them.

A row has two times: ``timestamp``, when the thing happened (or will), and ``known_at``, from when it could be used.
A bar gets what was known at its close: of a *state* the newest row's value, of a *flow* the sum over the rows that
became known after the close before and until this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import Market
from tradeloop.config.inputs import InputKind
from tradeloop.errors import ConfigError

Unit = Literal["price", "size", "money", "share", "count", "hours", "side", "level"]
"""Of a column: how it scales with the price (``price``) or against it (``size``), or that it does not (the others)."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """What a cell must be; `text` completes "<column> must …"."""

    text: str
    holds: Callable[[Floats], Mask]


POSITIVE = Rule("be positive", lambda values: values > 0)
NOT_NEGATIVE = Rule("not be negative", lambda values: values >= 0)
SIDE = Rule("be 1 (the buyer took), -1 (the seller took) or 0 (not known)", lambda values: np.isin(values, (-1, 0, 1)))
RATE = Rule("be a fraction between -1 and 1", lambda values: np.abs(values) <= 1)
VOLATILITY = Rule("be an annual volatility as a fraction, above 0 and at most 10", lambda v: (v > 0) & (v <= 10))
HOURS = Rule("be above 0 and at most 168 hours", lambda values: (values > 0) & (values <= 168))
IMPORTANCE = Rule("be 1, 2, 3, or 0 (called off)", lambda values: np.isin(values, (0, 1, 2, 3)))
WHOLE = Rule("be a whole number, 0 or more", lambda values: (values >= 0) & (values == np.floor(values)))


@dataclass(frozen=True)
class Column:
    """A column of a file.

    Attributes
    ----------
    unit, rule
        What it counts in, and what each cell must be; a cell is never missing.
    otherwise
        What stands for the whole column where the file has none: a number, or another column's name. None: it is
        required.
    """

    unit: Unit
    rule: Rule
    otherwise: float | str | None = None


@dataclass(frozen=True)
class Output:
    """A column that bars get.

    Attributes
    ----------
    unit
        See `Unit`.
    flow
        Whether it is a sum over the bar; else the last known value.
    reads
        The file's columns that it comes from.
    """

    unit: Unit
    flow: bool
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One kind of data beyond bars.

    Attributes
    ----------
    columns, outputs
        What a file holds beside its times, and what bars get, by name.
    max_age
        After so long without a new row nothing is known; None: silence means that nothing happened.
    ahead
        Rows may be known before their time; else ``known_at`` is never before ``timestamp``.
    announced
        The file must say when each row was known; else a row counts as known at its own time.
    relations
        Rules between columns: text, and what holds.
    """

    columns: Mapping[str, Column]
    outputs: Mapping[str, Output]
    max_age: str | None = None
    ahead: bool = False
    announced: bool = False
    relations: tuple[tuple[str, Callable[[pd.DataFrame], Mask]], ...] = ()


def _state(unit: Unit, *reads: str) -> Output:
    return Output(unit, flow=False, reads=reads)


def _flow(unit: Unit, *reads: str) -> Output:
    return Output(unit, flow=True, reads=reads)


def _plain(columns: Mapping[str, Column], *, flows: tuple[str, ...] = ()) -> dict[str, Output]:
    return {name: Output(column.unit, name in flows, (name,)) for name, column in columns.items()}


_QUOTE = {
    "bid_price": Column("price", POSITIVE),
    "bid_size": Column("size", POSITIVE),
    "ask_price": Column("price", POSITIVE),
    "ask_size": Column("size", POSITIVE),
    "bid_depth": Column("size", POSITIVE, otherwise="bid_size"),
    "ask_depth": Column("size", POSITIVE, otherwise="ask_size"),
}
_BEST = ("bid_price", "bid_size", "ask_price", "ask_size")
_TRADE = {
    "price": Column("price", POSITIVE),
    "size": Column("size", POSITIVE),
    "side": Column("side", SIDE, otherwise=0.0),
}
_FUNDING = {"rate": Column("share", RATE), "hours": Column("hours", HOURS, otherwise=8.0)}
_LIQUIDATION = {"long": Column("money", NOT_NEGATIVE), "short": Column("money", NOT_NEGATIVE)}
_OPTION = {
    "atm_iv": Column("share", VOLATILITY),
    "far_iv": Column("share", VOLATILITY),
    "put_iv": Column("share", VOLATILITY),
    "call_iv": Column("share", VOLATILITY),
    "put_volume": Column("count", NOT_NEGATIVE),
    "call_volume": Column("count", NOT_NEGATIVE),
    "put_open_interest": Column("count", NOT_NEGATIVE),
    "call_open_interest": Column("count", NOT_NEGATIVE),
}

KINDS: Mapping[InputKind, Kind] = {
    "book": Kind(
        columns=_QUOTE,
        outputs={
            **_plain(_QUOTE),
            "order_flow": _flow("size", *_BEST),
            "updates": _flow("count", *_BEST),
        },
        max_age="15m",
        relations=(
            ("ask_price must be above bid_price", lambda rows: np.asarray(rows["ask_price"] > rows["bid_price"])),
            ("bid_depth must not be below bid_size", lambda rows: np.asarray(rows["bid_depth"] >= rows["bid_size"])),
            ("ask_depth must not be below ask_size", lambda rows: np.asarray(rows["ask_depth"] >= rows["ask_size"])),
        ),
    ),
    "trades": Kind(
        columns=_TRADE,
        outputs={
            "buy_volume": _flow("size", "price", "size", "side"),
            "sell_volume": _flow("size", "price", "size", "side"),
            "count": _flow("count", "size"),
        },
        max_age="1d",
    ),
    "funding": Kind(
        columns=_FUNDING,
        outputs={
            "rate": _state("share", "rate"),
            "hours": _state("hours", "hours"),
            "hours_to_next": _state("hours", "hours"),
        },
        max_age="2d",
        ahead=True,
    ),
    "liquidations": Kind(columns=_LIQUIDATION, outputs=_plain(_LIQUIDATION, flows=("long", "short"))),
    "options": Kind(
        columns=_OPTION,
        outputs=_plain(_OPTION, flows=("put_volume", "call_volume")),
        max_age="5d",
    ),
    "events": Kind(
        columns={"id": Column("level", WHOLE), "importance": Column("level", IMPORTANCE, otherwise=2.0)},
        outputs={
            "hours_until": _state("hours", "id"),
            "hours_since": _state("hours", "id"),
            "importance_next": _state("level", "id", "importance"),
        },
        ahead=True,
        announced=True,
    ),
    "news": Kind(columns={"count": Column("count", WHOLE, otherwise=1.0)}, outputs={"count": _flow("count", "count")}),
}


def unit_of(name: str) -> Unit:
    """Return the unit of a column of `Bars.inputs`.

    Examples
    --------
    >>> unit_of("book.bid_price"), unit_of("trades.count")
    ('price', 'count')
    """
    for kind, definition in KINDS.items():
        for output, described in definition.outputs.items():
            if name == f"{kind}.{output}":
                return described.unit
    raise KeyError(name)


def input_columns(market: Market) -> frozenset[str]:
    """Return the columns of `Bars.inputs` that a market has, as ``kind.column``.

    Raises
    ------
    ConfigError
        ``columns`` or ``without`` of an input names a column that its kind does not have.
    """
    found = set()
    for name, files in market.inputs.items():
        kind = KINDS[name]
        for key, named in (("columns", files.columns), ("without", files.without)):
            if unknown := [column for column in named if column not in kind.columns]:
                raise ConfigError(f"inputs.{name}.{key} may name {list(kind.columns)}, got {unknown[0]!r}")
        lacking = set(files.without)
        found |= {f"{name}.{output}" for output, item in kind.outputs.items() if not lacking & set(item.reads)}
    return frozenset(found)


def all_columns() -> tuple[str, ...]:
    """Return every column that `Bars.inputs` may have, as ``kind.column``."""
    return tuple(f"{kind}.{output}" for kind, definition in KINDS.items() for output in definition.outputs)
