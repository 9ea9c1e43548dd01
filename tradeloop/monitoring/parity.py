"""Whether what was served is what the bars say: logged feature rows computed again from the raw bars, now and then.

Each hour of the market's clock a sample of the predictions that were logged since is taken. The row of each is computed
by the features' tail from the bars and context that are known now, and compared with the row that the model was given.
They are the same to the last bit unless something is wrong between bars and store; a difference above 1e-6, relative,
is an alarm. Where bars or context of a row were restated after it had been served, the journal says so, and the row is
left out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import func, select

from tradeloop.bars import Bars, known_close
from tradeloop.config import Params, parse_interval
from tradeloop.features import compute_tail, feature_lookback, schema_for
from tradeloop.inputs.reading import InputFeed
from tradeloop.integrity import check_context
from tradeloop.journal import BEGINNING, Commit, Journal
from tradeloop.layout import Layout
from tradeloop.monitoring.feed import BarFeed
from tradeloop.prediction_log import unpack
from tradeloop.sources import open_source
from tradeloop.state.database import Database
from tradeloop.state.tables import PredictionRow

COMPONENT = "parity"
TOLERANCE = 1e-6
_MOST_IDS = 20_000
_TABLE = PredictionRow.__table__
_NEEDED = ("id", "symbol", "logged_at", "feature_time", "features")


@dataclass(frozen=True)
class Parity:
    """What one comparison found.

    Attributes
    ----------
    compared, restated
        Rows that were computed again, and rows left out because their bars were restated since.
    different
        What is wrong, a line a row that differs; the worst first.
    """

    at: datetime
    compared: int = 0
    restated: int = 0
    different: Sequence[str] = ()

    @property
    def state(self) -> str:
        """``same`` or ``differs``."""
        return "differs" if self.different else "same"

    @property
    def line(self) -> str:
        """One line for a person."""
        told = f"{self.compared} served rows computed again, {len(self.different)} differ"
        told += f", {self.restated} restated since" if self.restated else ""
        return f"{told}: {self.different[0]}" if self.different else told


class ParityMonitor:
    """Compares served rows with what the bars say.

    Parameters
    ----------
    feed
        Cleaned, closed bars, without context.
    """

    def __init__(self, layout: Layout, params: Params, feed: BarFeed, database: Database) -> None:
        self._params = params
        self._feed = feed
        self._database = database
        self._schema = schema_for(params)
        self._lookback = feature_lookback(params)
        self._source = open_source(
            params.active, root=layout.root, seed=params.seed, streamed=layout.streamed(params.market)
        )
        self._inputs = InputFeed(params.active, layout.root) if params.active.inputs else None
        self._journal = Journal(layout.streamed(params.market))
        self._every = parse_interval(params.stream.parity_every)
        self._due: datetime | None = None
        self._seen: datetime | None = None

    def step(self, now: datetime) -> Parity | None:
        """Compare if it is due at the market's time `now`; None if it is not, or nothing was served since.

        Raises
        ------
        DataError
            The market's context cannot be read.
        StoreError
            The database or the journal does not answer.
        """
        if self._due is not None and now < self._due:
            return None
        served = self._sample(now)
        self._due = now + self._every
        if not served:
            return None
        return self._compare(served, now)

    def _sample(self, now: datetime) -> list[Mapping[str, Any]]:
        """Return logged rows of this code's schema that were answered since the last time, drawn by seed and time."""
        mine = [
            _TABLE.c.market == self._params.market,
            _TABLE.c.schema_hash == self._schema.hash,
            _TABLE.c.answered,
            _TABLE.c.feature_time.is_not(None),
        ]
        if self._seen is not None:
            mine.append(_TABLE.c.logged_at > self._seen)
        with self._database.read() as connection:
            newest = connection.execute(select(func.max(_TABLE.c.logged_at)).where(*mine)).scalar()
            if newest is None:
                return []
            order = select(_TABLE.c.id).where(*mine).order_by(_TABLE.c.logged_at.desc(), _TABLE.c.id).limit(_MOST_IDS)
            ids = list(connection.execute(order).scalars())
            draw = random.Random(f"{self._params.seed} {now.isoformat()}")
            chosen = draw.sample(ids, min(self._params.stream.parity_rows, len(ids)))
            columns = [_TABLE.c[name] for name in _NEEDED]
            rows = connection.execute(select(*columns).where(_TABLE.c.id.in_(chosen))).mappings().all()
        self._seen = newest
        return [dict(row) for row in rows]

    def _compare(self, served: Sequence[Mapping[str, Any]], now: datetime) -> Parity:
        context = {
            name: check_context(self._source.read_context(name), file=f"context {name}")
            for name in self._params.active.context
        }
        commits, _ = self._journal.read(BEGINNING)
        restated = 0
        different: list[tuple[float, str]] = []
        if self._inputs is not None:
            self._inputs.refresh()  # what is broken stays as it was, here as where the rows were made
        for row in served:
            tail = self._tail(row, context)
            if tail is not None and _restated(commits, row, tail):
                restated += 1
                continue
            error, what = self._difference(row, tail)
            if error > TOLERANCE:
                moment = row["feature_time"].isoformat()
                different.append((error, f"{row['symbol']} at {moment}, prediction {row['id']}: {what}"))
        lines = [line for _, line in sorted(different, key=lambda item: (-item[0], item[1]))]
        return Parity(now, len(served) - restated, restated, lines)

    def _tail(self, row: Mapping[str, Any], context: Mapping[str, pd.DataFrame]) -> Bars | None:
        """Return the bars that decide a row, as they are known now; None where its own bar is not among them."""
        bars = self._feed.bars(row["symbol"])
        time = np.datetime64(row["feature_time"].astimezone(UTC).replace(tzinfo=None), "us")
        end = int(bars.timestamp.searchsorted(time, side="right"))
        if not end or bars.timestamp[end - 1] != time:
            return None
        tail = bars[max(end - self._lookback, 0) : end]
        known = {name: known_close(tail.timestamp, frame) for name, frame in context.items()}
        since = bars.timestamp[end - len(tail) - 1] if end > len(tail) else None
        inputs = {} if self._inputs is None else self._inputs.known(row["symbol"], tail.timestamp, since=since)
        return replace(tail, context=known, inputs=inputs)

    def _difference(self, row: Mapping[str, Any], tail: Bars | None) -> tuple[float, str]:
        """Return the largest relative difference of a row's features, and which it is."""
        given = unpack(row["features"]).astype(np.float64)
        if tail is None:
            return np.inf, "there is no bar of that time"
        made = compute_tail(tail, self._schema).astype(np.float64)
        if made.shape != given.shape:
            return np.inf, f"{len(given)} features were served, {len(made)} are computed"
        errors = relative(given, made)
        worst = int(errors.argmax())
        return float(
            errors[worst]
        ), f"{self._schema.names[worst]} was {given[worst]:.9g}, the bars give {made[worst]:.9g}"


def relative(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return |left - right| over the larger of both sizes: 0 for two NaN, infinite for one."""
    size = np.maximum(np.abs(left), np.abs(right))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(left == right, 0.0, np.abs(left - right) / size)
    one = np.isnan(left) != np.isnan(right)
    return np.asarray(np.where(one, np.inf, np.where(np.isnan(errors), 0.0, errors)))


def _restated(commits: Sequence[Commit], row: Mapping[str, Any], tail: Bars) -> bool:
    """Return whether the journal got something that decides a row after the row had been served."""
    served = row["logged_at"].timestamp() * 1e6
    first, last = (int(tail.timestamp[place].astype(np.int64)) for place in (0, -1))
    for commit in reversed(commits):
        if commit.written_at <= served:
            return False
        if any(bar.symbol == row["symbol"] and first <= bar.time <= last for bar in commit.bars):
            return True
        if any(level.known <= last for level in commit.levels):
            return True
    return False
