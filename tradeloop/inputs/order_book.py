"""Level-3 order events → quotes, trades and bars: the book as it stood after each moment of the exchange.

1. Keep every resting order, and the size of each price level, in whole units of 1e-8, so that nothing is left over
   where orders go.
2. After all events of one exchange time, write a quote if the best prices, their sizes or the depth have changed.
3. An exchange's book is not crossed once it has matched what came. Where this one is, a message was missed: of the two
   orders that would have met, the older has gone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, Times, from_times, to_times
from tradeloop.errors import DataError
from tradeloop.inputs.alignment import align

UNIT = 1e8
"""Units of size in one: exchanges count in 1e-8."""

Quote = tuple[float, float, float, float, float, float]


@dataclass
class Side:
    """One side of the book: the sizes of its price levels, and its prices in order.

    Attributes
    ----------
    sign
        1 for bids, of which the highest is best; -1 for asks.
    """

    sign: int
    sizes: dict[float, int] = field(default_factory=dict)
    ranked: list[float] = field(default_factory=list)

    def add(self, price: float, size: int) -> None:
        """Change the size at a price; a level without size is gone."""
        left = self.sizes.get(price, 0) + size
        key = self.sign * price
        if price not in self.sizes:
            insort(self.ranked, key)
        self.sizes[price] = left
        if left <= 0:
            del self.sizes[price]
            del self.ranked[bisect_left(self.ranked, key)]

    def depth(self, levels: int) -> int:
        """Return the size at the best `levels` prices together."""
        return sum(self.sizes[self.sign * key] for key in self.ranked[-levels:])


@dataclass
class Book:
    """Every resting order, as side, price and size, the longest unchanged first; and the two sides that they make."""

    resting: dict[int, tuple[str, float, int]] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=lambda: {"bid": Side(1), "ask": Side(-1)})

    def add(self, order: int, direction: str, price: float, size: int) -> None:
        """Put an order behind the others; one without size is none."""
        if size > 0:
            self.resting[order] = direction, price, size
            self.sides[direction].add(price, size)

    def remove(self, order: int) -> None:
        """Take an order away if it is there."""
        if order in self.resting:
            direction, price, size = self.resting.pop(order)
            self.sides[direction].add(price, -size)

    def uncross(self) -> None:
        """Remove the older of two orders that would have met, until none would."""
        bids, asks = self.sides["bid"], self.sides["ask"]
        while bids.ranked and asks.ranked and bids.ranked[-1] >= -asks.ranked[-1]:
            best = {("bid", bids.ranked[-1]), ("ask", -asks.ranked[-1])}
            self.remove(next(order for order, found in self.resting.items() if found[:2] in best))

    def quote(self, levels: int) -> Quote | None:
        """Return best prices, their sizes and both depths; None where a side is empty."""
        bids, asks = self.sides["bid"], self.sides["ask"]
        if not bids.ranked or not asks.ranked:
            return None
        bid, ask = bids.ranked[-1], -asks.ranked[-1]
        sizes = bids.sizes[bid], asks.sizes[ask], bids.depth(levels), asks.depth(levels)
        return bid, sizes[0] / UNIT, ask, sizes[1] / UNIT, sizes[2] / UNIT, sizes[3] / UNIT


def replay_orders(orders: pd.DataFrame, *, levels: int = 5) -> pd.DataFrame:
    """Return the quotes that order events make, as canonical rows of the kind ``book``.

    Parameters
    ----------
    orders
        In the exchange's order: ``id``, ``timestamp`` (of the exchange), ``known_at`` (receipt), ``price``, ``volume``
        (what is left of the order), ``action`` (``created``, ``changed``, ``deleted``), ``direction`` (``bid``,
        ``ask``). Orders that were never created here are passed over.
    levels
        Best prices of a side whose sizes make its depth.

    Raises
    ------
    DataError
        The events are not in the order of their timestamps.
    """
    at = to_times(orders["timestamp"])
    if len(backwards := np.flatnonzero(np.diff(at) < np.timedelta64(0))):
        raise DataError(f"order events must be in the exchange's order, event {backwards[0] + 1} goes back in time")
    # What follows from several messages is known when the last of them is.
    known = np.maximum.accumulate(to_times(orders["known_at"]))
    columns = (orders[name].tolist() for name in ("id", "price", "volume", "action", "direction"))
    ends = np.append(at[1:] != at[:-1], True)
    rows = list(_quotes(zip(*columns, ends.tolist(), strict=True), levels))
    last = np.array([row for row, _ in rows], dtype=np.intp)
    quotes = np.array([quote for _, quote in rows]).reshape(-1, 6)
    names = ("bid_price", "bid_size", "ask_price", "ask_size", "bid_depth", "ask_depth")
    return pd.DataFrame(
        {"timestamp": from_times(at[last]), "known_at": from_times(known[last])}
        | {name: quotes[:, i] for i, name in enumerate(names)}
    )


def _quotes(events: Iterable[tuple[int, float, float, str, str, bool]], levels: int) -> Iterator[tuple[int, Quote]]:
    """Yield the event's number and the quote where it is another one."""
    book = Book()
    before: Quote | None = None
    for number, (order, price, volume, action, direction, ends) in enumerate(events):
        if action == "created" or order in book.resting:
            book.remove(order)
            if action != "deleted":
                book.add(order, direction, price, round(volume * UNIT))
        if ends:
            book.uncross()
            quote = book.quote(levels)
            if quote is not None and quote != before:
                yield number, quote
                before = quote


def quote_bars(quotes: pd.DataFrame, trades: pd.DataFrame, interval: timedelta) -> pd.DataFrame:
    """Return a bar frame of the mid price, with the traded volume; every value as it was known at the bar's close.

    The first bar begins at the first whole interval after the first quote, the last ends before the last one. A bar
    without a quote of its own stays at the price before it.

    Parameters
    ----------
    quotes, trades
        Canonical rows of the kinds ``book`` and ``trades``.
    """
    known = to_times(quotes["known_at"])
    step = np.timedelta64(interval)
    closes = _grid(known[0], known[-1], step)
    mid = ((quotes["bid_price"] + quotes["ask_price"]) / 2).to_numpy(np.float64)
    edges = np.searchsorted(known, np.append(closes[:1] - step, closes), side="right")
    opened, close = mid[edges[:-1] - 1], mid[edges[1:] - 1]
    # Each bar's own quotes, and the one that stood at its open, which the bar always has.
    firsts = edges[:-1] - 1
    high = np.array([mid[a:b].max() for a, b in zip(firsts, edges[1:], strict=True)])
    low = np.array([mid[a:b].min() for a, b in zip(firsts, edges[1:], strict=True)])
    flows = align("trades", trades, closes, since=closes[0] - step, max_age=None)
    volume = np.nan_to_num(flows["trades.buy_volume"] + flows["trades.sell_volume"])
    values = (from_times(closes), opened, high, low, close, volume)
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def _grid(first: np.datetime64, last: np.datetime64, step: np.timedelta64) -> Times:
    epoch = np.datetime64(0, "us")
    begin = epoch + -(-(first - epoch) // step) * step
    return np.asarray(np.arange(begin + step, last, step).astype("datetime64[us]"))
