"""Feature rows for a request, and the market's time at which it was asked; keeps the online store filled."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from tradeloop.bundle import Bundle
from tradeloop.clock import Clock, LiveClock, ReplayClock
from tradeloop.config import Params
from tradeloop.errors import SchemaMismatch, StoreError
from tradeloop.layout import Layout
from tradeloop.promotion import require_schema
from tradeloop.schema import Schema
from tradeloop.state.online import OnlineRows, OnlineStore

log = logging.getLogger(__name__)

REPAIR_SECONDS = 30.0
"""A store that could not be completed is not tried again for this long."""
LAST_BAR_SECONDS = 5.0
_CHUNK = 256
_NO_BAR = int(np.iinfo(np.int64).min)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Asked:
    """The rows of the symbols asked for, and the time of the question."""

    rows: OnlineRows
    now: datetime
    schema_hash: str


class FeatureReader:
    """Reads by schema from Feast's online store, on the market's clock. One instance serves many threads."""

    def __init__(self, layout: Layout, params: Params) -> None:
        self._store = OnlineStore(layout, params)
        self._schema = layout.store / "schema.json"
        self._symbols = params.active.symbols
        self._last_bar = _NO_BAR  # microseconds since 1970
        self._tried: dict[str, float] = {}
        self._noted = 0.0
        self._outcome = ""
        live = params.active.clock == "live"
        self.clock: Clock = LiveClock() if live else ReplayClock(self._newest)

    def read(self, symbols: Sequence[str], schema: Schema) -> Asked:
        """Return the newest rows, and the clock's time.

        Raises
        ------
        StoreError
            The online store does not answer.
        """
        rows = self._store.read(symbols, schema)
        self._note(rows)
        return Asked(rows, self.clock.now(), schema.hash)

    def as_of(self, symbols: Sequence[str], schema: Schema, moment: datetime) -> Asked:
        """Return the rows that were the newest at `moment` (UTC), from the offline files.

        Raises
        ------
        SchemaMismatch, StoreError
            The offline files are of another schema, or cannot be read.
        """
        return Asked(self._store.history(symbols, schema, moment), moment, schema.hash)

    def rows(self, symbols: Sequence[str], schema: Schema, moment: datetime | None) -> OnlineRows:
        """Return rows as `read` or `as_of` does, without a look at the clock: for models that only watch."""
        return self._store.read(symbols, schema) if moment is None else self._store.history(symbols, schema, moment)

    def require(self, bundle: Bundle) -> None:
        """Raise SchemaMismatch, with the difference, for a bundle whose features the store neither has nor could have.

        They could be there if they are what the project's features stage writes now.
        """
        path = self._schema
        require_schema(bundle, current=Schema.load(path) if path.is_file() else None, holds=self._holds)

    def prepare(self, schema: Schema) -> None:
        """Fill the online store where it lacks rows of `schema`, and find the last bar.

        Raises
        ------
        StoreError
            There is no row of any symbol, and none to fill in.
        """
        self.repair(schema)
        self._last_bar = _NO_BAR
        if not self._find_last_bar(schema):
            raise StoreError(
                f"the online store has no features of schema {schema.hash[:12]}: run `tradeloop publish` in a project "
                "whose features stage has this schema"
            )

    def repair(self, schema: Schema) -> None:
        """Fill what is missing from the offline files; what cannot be filled is logged (once) and stays missing."""
        outcome = ""
        try:
            missing = self._store.missing(schema)
            if missing:
                filled = self._store.fill(schema)
                outcome = (
                    f"the online store lacked {_few(missing)} of schema {schema.hash[:12]}: filled {filled} rows in"
                )
                missing = self._store.missing(schema)
        except (SchemaMismatch, StoreError) as error:
            outcome, missing = f"the online store cannot be filled: {error}", self._symbols
        if missing:
            self._tried[schema.hash] = time.monotonic()
        if outcome and not (missing and outcome == self._outcome):
            log.warning("%s", outcome)
        self._outcome = outcome

    def may_repair(self, schema: Schema) -> bool:
        """Return whether the last attempt that failed to complete the store is long enough ago for another one."""
        tried = self._tried.get(schema.hash)
        return tried is None or time.monotonic() - tried >= REPAIR_SECONDS

    def tick(self, schema: Schema) -> None:
        """Look now and then whether a replayed market has got newer bars."""
        if self.clock.mode == "replay" and time.monotonic() - self._noted >= LAST_BAR_SECONDS:
            self._find_last_bar(schema)

    def close(self) -> None:
        """Let go of the store's connections."""
        self._store.close()

    def _holds(self, schema: Schema) -> bool:
        return bool(self._store.read(self._symbols, schema).found.any())

    def _find_last_bar(self, schema: Schema) -> bool:
        """Read all of the market's symbols, a few at a time; return whether any row was found."""
        found = False
        for start in range(0, len(self._symbols), _CHUNK):
            rows = self._store.read(self._symbols[start : start + _CHUNK], schema)
            self._note(rows)
            found = found or bool(rows.found.any())
        self._noted = time.monotonic()
        return found

    def _note(self, rows: OnlineRows) -> None:
        """Let a replayed market's clock advance to the newest of `rows`; NaT is the smallest integer."""
        newest = int(rows.feature_time.view(np.int64).max(initial=_NO_BAR))
        if newest > self._last_bar:
            self._last_bar = newest

    def _newest(self) -> datetime:
        if self._last_bar == _NO_BAR:
            raise StoreError("a replayed market's clock stands at its last bar, and the online store holds no bar")
        return _EPOCH + timedelta(microseconds=self._last_bar)


def _few(symbols: Sequence[str]) -> str:
    shown = ", ".join(symbols[:5])
    return f"{len(symbols)} symbols ({shown}, …)" if len(symbols) > 5 else shown
