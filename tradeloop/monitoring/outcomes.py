"""From predictions to outcomes: every prediction ends resolved, expired or void, once.

1. Take up what is pending. A prediction without numbers (it was withheld) is void at once.
2. A prediction is resolved when its label has ended: when `horizon` bars follow the bar of its features. The labels are
   `tradeloop.labels`', computed on the bars that they read. If its bar is not there while `horizon` later ones are, it
   is void: the bars were restated without it.
3. One that has waited for longer than `expire_after` is expired, if bars confirm that the time has passed: the newest
   bar of any symbol is so much later too. A clock that jumps ahead therefore expires nothing. Where the whole market
   is silent, the clock has to run on for another `expire_after` without one bar.
4. Outcomes are written in order of (label's end, prediction id), in one transaction. Expired and void are final.
5. When a symbol's bars are restated, outcomes whose labels ended in the last `restate_within` are compared with the new
   bars. One that differs is revised; its number stays, its old values move to the revisions.

A clock that is set back takes nothing back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from tradeloop.clock import Clock
from tradeloop.config import Labels, parse_interval
from tradeloop.config import Outcomes as Config
from tradeloop.errors import StoreError
from tradeloop.monitoring.ending import Ending
from tradeloop.monitoring.feed import BarFeed, Version
from tradeloop.monitoring.label_span import Labelled, Labeller, locate, to_moment, to_stamps
from tradeloop.monitoring.ledger import Ledger, Superseded, Ticket
from tradeloop.monitoring.queue import Queue, Waiting
from tradeloop.monitoring.records import Logged, Resolved
from tradeloop.monitoring.restatement import revisions
from tradeloop.state.database import Database

_TAKEN_AT_ONCE = 50_000
_WRITTEN_AT_ONCE = 5_000
_MOST_NOTED = 200_000
_TRIES = 5
_FAR_PAST = datetime.min.replace(tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_RESTATED = "the bars were restated"


class Resolver:
    """Finds outcomes. One a market writes at a time; a second one makes the first read again, nothing worse.

    Parameters
    ----------
    labels
        What the predictions forecast.
    feed
        Closed bars up to the clock's now.
    """

    def __init__(
        self, database: Database, market: str, *, labels: Labels, feed: BarFeed, clock: Clock, config: Config
    ) -> None:
        self._ledger = Ledger(database, market)
        self._market = market
        self._labeller = Labeller(labels, config.regimes)
        self._feed = feed
        self._clock = clock
        self._patience = parse_interval(config.expire_after)
        self._restate_within = parse_interval(config.restate_within)
        self.restated: list[Resolved] = []
        """Outcomes that the last `advance` revised, with their new values."""
        self._noted: dict[str, Logged] = {}
        self._checked: dict[str, int] = {}
        self._told = self._seq = self._ledger.last_seq()
        self._unsure = False
        self._versions: dict[str, Version] = {}
        self._forget()

    @property
    def pending(self) -> int:
        """How many predictions are known to wait."""
        return len(self._tickets)

    def note(self, predictions: Iterable[Logged]) -> None:
        """Hand over predictions that are being logged, so that they need not be read.

        They count from the moment when the database has them.
        """
        if len(self._noted) > _MOST_NOTED:
            self._noted.clear()
        self._noted.update((prediction.id, prediction) for prediction in predictions)

    def advance(self) -> list[Resolved]:
        """Write every outcome that can be known now; return what was resolved, in order.

        What this returns, call by call, is every resolved prediction after those that were there when this object was
        made: nothing is left out or told twice, whatever fails in between and whoever else writes.

        Raises
        ------
        StoreError
            The database cannot be used, or others keep writing this market's outcomes. Call again.
        """
        self.restated, found = [], []
        for _ in range(_TRIES):
            if self._unsure:
                found = self._start_over()
            self._unsure = True
            self._versions = {symbol: self._feed.version(symbol) for symbol in self._feed.symbols}
            try:
                self._take_up()
                self._restate()
                endings = self._endings()
                for first in range(0, len(endings), _WRITTEN_AT_ONCE):
                    found += self._write(endings[first : first + _WRITTEN_AT_ONCE])
            except Superseded:
                continue
            self._unsure, self._told = False, self._seq
            return found
        raise StoreError(f"market {self._market}: others keep writing its outcomes, {_TRIES} attempts failed")

    def replay(self, after_seq: int) -> Iterator[Resolved]:
        """Yield the resolved predictions after an outcome's number, in order, up to where `advance` goes on."""
        return self._ledger.replay(after_seq, self._told)

    def _start_over(self) -> list[Resolved]:
        """Forget what was not confirmed; return what turned out to be written since the caller was last told."""
        self._forget()
        self._seq = self._ledger.last_seq()
        return list(self._ledger.replay(self._told, self._seq))

    def _forget(self) -> None:
        """Know nothing of what is pending."""
        self._queues: dict[str, Queue] = {}
        self._withheld: Waiting = []
        self._tickets: set[int] = set()
        self._cursor = 0
        self._newest_end: dict[str, datetime] = {}
        self._silence: tuple[datetime, datetime | None] | None = None

    def _take_up(self) -> None:
        """Learn of predictions that became pending.

        Numbers of rows are given before they are committed, so a smaller one may appear later: the count tells.
        """
        news = self._ledger.news(self._cursor, _TAKEN_AT_ONCE)
        if news.newest != self._seq:
            raise Superseded
        self._adopt(news.tickets)
        if len(news.tickets) == _TAKEN_AT_ONCE or news.waiting == len(self._tickets):
            return
        there = self._ledger.pending()
        if not self._tickets.issubset(ticket for ticket, _ in there):
            self._forget()
        self._adopt([ticket for ticket in there if ticket[0] not in self._tickets])

    def _adopt(self, tickets: Sequence[Ticket]) -> None:
        unread = [found for _, found in tickets if found not in self._noted]
        logged = self._ledger.read(unread) if unread else {}
        for ticket, found in tickets:
            self._tickets.add(ticket)
            self._cursor = max(self._cursor, ticket)
            prediction = self._noted.pop(found, None) or logged.get(found)
            if prediction is None:  # deleted by hand; `accounts` names it
                continue
            if prediction.feature_time is None or None in (prediction.p_up, prediction.ret, prediction.range):
                self._withheld.append((ticket, prediction))
            else:
                queue = self._queues.setdefault(prediction.symbol, Queue())
                queue.put(ticket, prediction, prediction.feature_time)

    def _endings(self) -> list[Ending]:
        """Take everything out of the queues that ends now, in the order in which it is written."""
        now = self._clock.now()
        endings = [Ending(ticket, it, "void", now, "withheld") for ticket, it in self._withheld]
        self._withheld = []
        for symbol in sorted(self._queues):
            endings += self._ended(symbol, self._queues[symbol], now)
        endings += self._expired(now)
        return sorted(endings, key=lambda e: (e.label.label_end if e.label else _FAR_PAST, e.prediction.id))

    def _ended(self, symbol: str, queue: Queue, now: datetime) -> list[Ending]:
        """Return how predictions end whose label would have ended by the bars that are there."""
        version = self._versions.get(symbol)
        if version is None or version == queue.seen:
            return []
        queue.seen = version
        bars = self._feed.bars(symbol)
        newest = len(bars) - self._labeller.horizon - 1  # the last bar whose label has ended
        due = queue.take(to_moment(bars.timestamp[newest])) if newest >= 0 else []
        if not due:
            return []
        at, there = locate(bars, to_stamps([time for time, _ in due]))
        span = self._labeller.span(bars, version.restated, at[there]) if there.any() else None
        endings = []
        for (time, waiting), position, has_bar in zip(due, at.tolist(), there.tolist(), strict=True):
            if span is not None and has_bar:
                endings += self._resolve(symbol, time, waiting, span.at(position), now)
            else:
                endings += [Ending(ticket, it, "void", now, "no_bar") for ticket, it in waiting]
        return endings

    def _resolve(self, symbol: str, time: datetime, waiting: Waiting, label: Labelled, now: datetime) -> list[Ending]:
        """Return the endings of all predictions of one bar; all but the first of a model and arm are repeats."""
        if symbol not in self._newest_end:
            self._newest_end[symbol] = self._ledger.newest_end(symbol) or _FAR_PAST
        # Only a question whose answer is known already can have been answered before.
        late = label.label_end <= self._newest_end[symbol]
        answered = self._ledger.answered(symbol, label.label_end, time) if late else set()
        endings = []
        for ticket, prediction in sorted(waiting, key=lambda item: item[1].id):
            asker = (prediction.model, prediction.arm)
            endings.append(Ending(ticket, prediction, "resolved", now, None, label, asker in answered))
            answered.add(asker)
        self._newest_end[symbol] = max(self._newest_end[symbol], label.label_end)
        return endings

    def _expired(self, now: datetime) -> list[Ending]:
        """Return the endings of what has waited for too long, by the clock and by the bars."""
        oldest = min((queue.times[0] for queue in self._queues.values() if queue.times), default=now)
        if now - oldest <= self._patience:
            self._silence = None
            return []
        newest = max((self._newest_bar(symbol) for symbol in self._feed.symbols), default=_FAR_PAST)
        if self._silence is None or self._silence[1] != newest or now < self._silence[0]:
            self._silence = (now, newest)
        proven = now if now - self._silence[0] >= self._patience else min(now, newest)
        if proven - oldest <= self._patience:
            return []
        return [
            Ending(ticket, prediction, "expired", now, "no_bars")
            for queue in self._queues.values()
            for _, waiting in queue.take(proven - self._patience - _TICK)
            for ticket, prediction in waiting
        ]

    def _newest_bar(self, symbol: str) -> datetime:
        bars = self._feed.bars(symbol)
        return to_moment(bars.timestamp[-1]) if len(bars) else _FAR_PAST

    def _write(self, endings: Sequence[Ending]) -> list[Resolved]:
        written = self._ledger.write(endings, after=self._seq)
        self._seq = written[-1].seq
        self._tickets.difference_update(ending.ticket for ending in endings)
        return [
            Resolved(ending.prediction, outcome)
            for ending, outcome in zip(endings, written, strict=True)
            if outcome.status == "resolved"
        ]

    def _restate(self) -> None:
        """Revise what the bars of a symbol say otherwise, where they were changed or were not looked at yet."""
        since = self._clock.now() - self._restate_within
        for symbol, version in self._versions.items():
            if self._checked.get(symbol) == version.restated:
                continue
            bars = self._feed.bars(symbol)
            found = revisions(self._ledger, self._labeller, bars, restated=version.restated, since=since)
            if found:
                self._ledger.revise([(it.before.outcome, it.after, it.ending) for it in found], reason=_RESTATED)
                self.restated += [revision.resolved for revision in found]
            self._checked[symbol] = version.restated
