"""Keeping the online store fresh between runs of the pipeline: new closed bars → newest feature row → online store.

The row is computed by the features' own tail from the same cleaned bars and context as the pipeline's, so it is the
row that the pipeline would store. Files that DVC owns are never written: the next `dvc repro` starts from the source.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Times, known_close
from tradeloop.config import Params
from tradeloop.errors import ConfigError, DataError, SchemaMismatch
from tradeloop.features import compute_tail, feature_lookback, schema_for
from tradeloop.inputs.reading import InputFeed
from tradeloop.integrity import check_context
from tradeloop.layout import Layout
from tradeloop.monitoring.feed import BarFeed
from tradeloop.schema import Schema
from tradeloop.sources import open_source
from tradeloop.state.online import OnlineRows, OnlineStore


@dataclass(frozen=True)
class Refreshed:
    """What one call did.

    Attributes
    ----------
    written
        Symbols whose newest row was stored, by schema hash.
    newest
        Feature time of the newest row that was computed, UTC; NaT where nothing had changed.
    problems
        Why a context series or other data were not taken, or a schema could not be served, by its name.
    """

    written: Mapping[str, Sequence[str]] = field(default_factory=dict)
    newest: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT", "us"))
    problems: Mapping[str, str] = field(default_factory=dict)


class Refresher:
    """Notices new bars of one market and stores the feature rows that follow from them.

    Where nothing has changed, a call costs a look at each file. A row is written once, and again when its bar or its
    context was restated; an older row never replaces a newer one.

    Parameters
    ----------
    feed
        Cleaned, closed bars, without context.
    store
        Where rows go.
    """

    def __init__(self, layout: Layout, params: Params, feed: BarFeed, store: OnlineStore) -> None:
        self._params = params
        self._feed = feed
        self._store = store
        self._source = open_source(
            params.active, root=layout.root, seed=params.seed, streamed=layout.streamed(params.market)
        )
        self._inputs = InputFeed(params.active, layout.root)
        self._schema = schema_for(params)
        self._lookback = feature_lookback(params)
        self._context: dict[str, pd.DataFrame] = {}
        self._context_seen: dict[str, Hashable] = {}
        self._stored: dict[tuple[str, str], Hashable] = {}

    def refresh(self, schemas: Sequence[Schema] | None = None) -> Refreshed:
        """Store the newest row of each symbol whose bars, context or inputs have changed.

        Parameters
        ----------
        schemas
            Those of the models that are asked; by default the one that this code and these parameters make.

        Raises
        ------
        StoreError
            The online store does not answer; the next call tries again.
        """
        problems = self._read_context() | self._inputs.refresh()
        written: dict[str, list[str]] = {}
        newest = np.datetime64("NaT", "us")
        for schema in [self._schema] if schemas is None else schemas:
            now = {symbol: self._version(symbol) for symbol in self._feed.symbols}
            changed = [name for name, version in now.items() if self._stored.get((schema.hash, name)) != version]
            try:
                symbols, rows = self._rows(changed, schema)
            except SchemaMismatch as error:
                problems[schema.hash] = str(error)
                continue
            if symbols:
                self._store.write(symbols, rows, schema)
                written[schema.hash] = symbols
                newest = np.fmax(newest, rows.feature_time.max())
            self._stored |= {(schema.hash, name): now[name] for name in changed}
        return Refreshed(written, newest, problems)

    def _rows(self, symbols: Sequence[str], schema: Schema) -> tuple[list[str], OnlineRows]:
        """Return the newest row of those symbols that have bars."""
        names: list[str] = []
        vectors: list[NDArray[np.float32]] = []
        times: list[np.datetime64] = []
        for symbol in symbols:
            bars = self._feed.bars(symbol)
            tail = bars[-self._lookback :]
            if len(tail):
                since = bars.timestamp[-len(tail) - 1] if len(bars) > len(tail) else None
                inputs = self._inputs.known(symbol, tail.timestamp, since=since)
                tail = replace(tail, context=self._known(tail.timestamp), inputs=inputs)
                names.append(symbol)
                vectors.append(compute_tail(tail, schema))
                times.append(tail.timestamp[-1])
        if not names:
            return names, OnlineRows.empty(0, len(schema))
        return names, OnlineRows.of(np.stack(vectors), np.array(times, dtype="datetime64[us]"))

    def _known(self, at: Times) -> dict[str, NDArray[np.float64]]:
        missing = np.full(len(at), np.nan)
        context = self._params.active.context
        return {name: known_close(at, self._context[name]) if name in self._context else missing for name in context}

    def _version(self, symbol: str) -> Hashable:
        context = tuple(self._context_seen.get(name) for name in self._context)
        return self._feed.version(symbol), context, self._inputs.version(symbol)

    def _read_context(self) -> dict[str, str]:
        """Read the context series that have changed; one that fails the rules stays as it was."""
        problems = {}
        for name in self._params.active.context:
            try:
                found = self._source.context_version(name)
                if name not in self._context or self._context_seen[name] != found:
                    frame = check_context(self._source.read_context(name), file=f"context {name}")
                    self._context[name], self._context_seen[name] = frame, found
            except (DataError, ConfigError) as error:
                problems[name] = str(error)
        return problems
