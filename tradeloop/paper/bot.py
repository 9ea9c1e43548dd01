"""The bot: bar by bar it fills, values, asks and remembers; killed at any moment it goes on where it was.

For each bar, in one transaction of its ledger:

1. what was wanted at the close before is filled at this bar's open;
2. the account is valued at this bar's close, and stopped if it has fallen too far;
3. the service is asked what to hold next, as of this close.

The fills are then reported, under names that follow from account, symbol and bar. A death before the transaction leaves
nothing of the bar, one after it leaves all: at worst a question is asked, or a fill reported, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from tradeloop.config import Paper
from tradeloop.errors import StoreError
from tradeloop.monitoring.feed import BarFeed
from tradeloop.paper.endpoint import Endpoint
from tradeloop.paper.exchange import Quote, Target, close_bar, settle
from tradeloop.paper.ledger import Bar, Ledger, State


class Bot:
    """Trades one market's symbols.

    Parameters
    ----------
    feed
        The market's bars.
    endpoint, ledger
        Whom to ask, and where to remember.
    state
        Where the account stands, from `Ledger.begin`.
    interval
        Length of a bar: an order is filled that long before the close of the bar that fills it.
    replay
        Ask as of each bar's close; otherwise only about the newest bar, on the service's own clock.
    """

    def __init__(
        self,
        feed: BarFeed,
        endpoint: Endpoint,
        ledger: Ledger,
        state: State,
        *,
        rules: Paper,
        seed: int,
        interval: timedelta,
        replay: bool,
    ) -> None:
        self.state = state
        self._feed = feed
        self._endpoint = endpoint
        self._ledger = ledger
        self._rules = rules
        self._seed = seed
        self._interval = interval
        self._replay = replay

    @property
    def finished(self) -> bool:
        """Whether the account was stopped and holds nothing any more."""
        return self.state.account.stopped and not self.state.account.positions

    def due(self, start: datetime | None = None, end: datetime | None = None) -> list[datetime]:
        """Return the closes of the bars that are still to be worked through, within bounds."""
        closes = [self._feed.bars(symbol).timestamp for symbol in self._feed.symbols]
        times = [moment.replace(tzinfo=UTC) for moment in np.unique(np.concatenate(closes)).tolist()]
        after = self.state.cursor
        return [
            at
            for at in times
            if (after is None or at > after) and (start is None or at >= start) and (end is None or at <= end)
        ]

    def run(self, times: Iterable[datetime], progress: Callable[[Bar], None] = lambda _: None) -> None:
        """Work through bars, oldest first, until they end or the account is stopped and empty.

        Raises
        ------
        StoreError
            The service stayed away for too long; what was done is in the ledger.
        TradeloopError
            The service refused a question.
        """
        waiting = list(times)
        for place, at in enumerate(waiting):
            if self.finished:
                return
            progress(self._work(at, ask=self._replay or place == len(waiting) - 1))
            self.report()

    def report(self) -> None:
        """Report the fills that the service does not know yet."""
        fills = self._ledger.unreported()
        if fills:
            self._ledger.reported(self._endpoint.report(fills))

    def _work(self, at: datetime, *, ask: bool) -> Bar:
        state, quotes = self.state, self._quotes(at)
        account, fills = settle(state.account, state.targets, quotes, rules=self._rules, run=state.run, seed=self._seed)
        account = close_bar(account, quotes, rules=self._rules)
        targets, asked, abstained = dict(state.targets), 0, 0
        if account.stopped:
            targets = {symbol: Target(0, held.prediction_id) for symbol, held in account.positions.items()}
        elif ask:
            answers = self._endpoint.predict(sorted(quotes), at if self._replay else None)
            targets |= answers.targets
            asked, abstained = answers.asked, answers.abstained
        self.state = replace(state, cursor=at, account=account, targets=targets)
        bar = Bar(at, account.equity, account.exposure, asked, abstained)
        self._ledger.commit(self.state, fills, bar)
        return bar

    def _quotes(self, at: datetime) -> dict[str, Quote]:
        """Return the bars that closed at a moment."""
        moment = np.datetime64(at.replace(tzinfo=None), "us")
        found = {}
        for symbol in self._feed.symbols:
            bars = self._feed.bars(symbol)
            i = int(np.searchsorted(bars.timestamp, moment))
            if i < len(bars) and bars.timestamp[i] == moment:
                # Never before the question that led to it: a bar after a weekend opens long after the last close.
                opened = at - self._interval
                opened = opened if self.state.cursor is None else max(opened, self.state.cursor)
                numbers = (float(series[i]) for series in (bars.open, bars.close, bars.volume))
                found[symbol] = Quote(opened, at, *numbers)
        if not found:
            raise StoreError(f"no symbol has a bar that closed at {at.isoformat()}")
        return found
