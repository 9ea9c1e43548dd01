r"""Drift of features and forecasts: the newest served rows against the sketches in the champion's bundle.

A column has drifted if two things hold.

**It is significant.** Each value is turned into its rank u in the sketch, and two means over the window are compared
with those of the training rows: of the level score 2u - 1, which tells of a shift, and of the spread score, its size,
which tells of a distribution that grew wider or narrower. Ranks are bounded, so that these means are close to normal,

.. math:: t = (\bar s - \bar s_0) \,/\, \left(\sigma_0 \sqrt{E/n + E/N}\right)

for n rows against N, where E rows count as one: features are strongly autocorrelated, a year of daily bars holds a
single independent value of a slow volatility. The bundle's sketch has measured E for each score on the training rows
(`tradeloop.reference.ranks`), with a relative variance of 20 E/N; t is therefore taken as Student's with N/(10 E)
degrees of freedom, as if it came with a variance estimated so well. The smaller of the two p-values counts, twice. Over
all columns the false discovery rate is held by the rule of Benjamini and Hochberg (1995), which allows for the positive
dependence that features of one price have.

**It is large.** On enough rows everything is significant. Both the population stability index over ten bins of equal
weight in training, :math:`\sum (q - p) \ln(q/p)`, and the Wasserstein distance must reach their floors: the first
counts how many rows have moved, however little, the second how far. The latter is the mean distance of the quantiles
from 2.5 to 97.5 per cent, in standard deviations of the training rows; the outermost ones are single rows.

The rate of false discoveries holds for each look at a window, not for all looks of a year together; what has drifted by
chance is gone a window later. `tests/monitoring/test_drift.py` measures it on stationary rows.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import Drift
from tradeloop.reference import Reference, Sketch
from tradeloop.reference.content import Scores
from tradeloop.reference.ranks import rank_map, rank_scores

BINS = 10
SHOWN = 10
MAX_SIZE = 1e6
FORECASTS = ("p_up", "range")
_NO_SCORES = Scores(mean=0.0, sd=1.0, effect=1.0)


@dataclass(frozen=True, slots=True)
class ServedRow:
    """What one bar's forecast was made from: float32 (d,) in the schema's order; `range` is a fraction of the price."""

    symbol: str
    feature_time: datetime
    features: NDArray[np.float32]
    p_up: float
    range: float


class DriftMonitor:
    """Keeps the newest served rows and compares them with what the champion was trained on.

    Parameters
    ----------
    reference
        The champion's, from its bundle. Another champion needs another monitor.
    """

    def __init__(self, reference: Reference, config: Drift) -> None:
        self._config = config
        self._names = (*reference.features.names, *FORECASTS)
        self._features = len(reference.features.names)
        forecasts = reference.forecasts
        self._sketches = Sketches(
            [*reference.features.train, forecasts.p_up, forecasts.range],
            [reference.train_rows] * self._features + [reference.rows] * len(FORECASTS),
        )
        self._rows = np.empty((config.rows, len(self._names)), dtype=np.float32)
        self._seen = 0
        self._looked = 0
        self._newest: dict[str, datetime] = {}
        self._evidence: dict[str, Any] = {}

    def update(self, rows: Iterable[ServedRow]) -> None:
        """Take served rows, oldest first; compare again if `every` more have come since the last comparison.

        Of each symbol only rows of a later bar than its newest count, so that a bot that asks twice changes nothing;
        neither does a row with a value that is not finite.
        """
        latest: datetime | None = None
        for row in rows:
            newest = self._newest.get(row.symbol)
            if newest is not None and row.feature_time <= newest:
                continue
            values = np.append(row.features, (row.p_up, math.log(max(row.range, 1e-12)))).astype(np.float32)
            if len(values) != len(self._names):
                raise ValueError(f"a row must have {self._features} features, got {len(row.features)}")
            if not np.isfinite(values).all():
                continue
            self._newest[row.symbol] = row.feature_time
            self._rows[self._seen % len(self._rows)] = values
            self._seen += 1
            latest = row.feature_time
        due = self._seen - self._looked >= self._config.every or not self._looked
        if latest is not None and due and self._seen >= self._config.min_rows:
            self._looked = self._seen
            self._look(latest)

    def evidence(self) -> dict[str, Any]:
        """Return the newest comparison as JSON; empty before there are `min_rows` rows.

        Returns
        -------
        dict
            ``at`` (time of its newest row), ``rows``; ``share`` of the features that have drifted, ``count``,
            and ``since`` when without a pause (null: none has); ``drifted``: the largest, each with ``psi``,
            ``wasserstein``, ``shift`` of the mean in standard deviations and ``p``; ``forecasts``: the same of p_up
            and the log range, with ``drifted``.
        """
        return self._evidence

    def recent(self) -> NDArray[np.float32]:
        """Return the rows held (n, d + 2), oldest first: the features, p_up and the log range."""
        held = min(self._seen, len(self._rows))
        return np.roll(self._rows, -(self._seen % len(self._rows)), axis=0)[-held:] if held else self._rows[:0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `recent`."""
        return self._names

    def state(self) -> dict[str, Any]:
        """Return what it remembers, as JSON: some 350 bytes a row, for the rows themselves are part of it."""
        return {
            "seen": self._seen,
            "looked": self._looked,
            "newest": {symbol: at.isoformat() for symbol, at in self._newest.items()},
            "evidence": self._evidence,
            "rows": base64.b64encode(self.recent().astype("<f4").tobytes()).decode(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned; raise ValueError if it is of another schema or another number of rows."""
        values = np.frombuffer(base64.b64decode(state["rows"]), dtype="<f4")
        held = min(int(state["seen"]), len(self._rows))
        if values.size != held * len(self._names):
            expected = f"{held} rows of {len(self._names)}"
            raise ValueError(f"the state of the drift monitor must hold {expected} values, got {values.size} values")
        self._seen, self._looked = int(state["seen"]), int(state["looked"])
        self._newest = {symbol: datetime.fromisoformat(at) for symbol, at in state["newest"].items()}
        self._evidence = dict(state["evidence"])
        places = np.arange(self._seen - held, self._seen) % len(self._rows)
        self._rows[places] = values.reshape(held, len(self._names))

    def _look(self, at: datetime) -> None:
        window = self.recent()
        found = self._sketches.compare(window)
        drifted = found.drifted(self._config)
        count = int(drifted[: self._features].sum())
        since = (self._evidence.get("since") or at.isoformat()) if count else None
        size = np.minimum(found.psi / self._config.psi, found.wasserstein / self._config.wasserstein)
        order = [int(i) for i in np.argsort(-size, kind="stable") if drifted[i] and i < self._features]
        self._evidence = {
            "at": at.isoformat(),
            "rows": len(window),
            "count": count,
            "share": round(count / self._features, 4),
            "since": since,
            "drifted": [{"feature": self._names[i], **found.figures(i)} for i in order[:SHOWN]],
            "forecasts": {
                name: {**found.figures(i), "drifted": bool(drifted[i])}
                for i, name in enumerate(FORECASTS, start=self._features)
            },
        }


@dataclass(frozen=True)
class Comparison:
    """What a window of rows looks like beside the sketches, column by column (d,)."""

    p: Floats
    psi: Floats
    wasserstein: Floats
    shift: Floats

    def drifted(self, config: Drift) -> NDArray[np.bool_]:
        """Return which columns (d,) are both significantly and largely different."""
        large = (self.psi >= config.psi) & (self.wasserstein >= config.wasserstein)
        return large & discoveries(self.p, config.false_discovery)

    def figures(self, column: int) -> dict[str, float]:
        """Return one column's figures."""
        return {
            "psi": round(float(self.psi[column]), 4),
            "wasserstein": round(float(self.wasserstein[column]), 4),
            "shift": round(float(self.shift[column]), 4),
            "p": float(f"{self.p[column]:.3g}"),
        }


class Sketches:
    """Sketches of d columns as arrays; `rows` says from how many rows each was made."""

    def __init__(self, sketches: list[Sketch], rows: list[int]) -> None:
        # In float32, as features are: then a value that is frequent lies on its quantile, not beside it.
        self._quantiles = np.array([sketch.quantiles for sketch in sketches], dtype=np.float32).astype(np.float64)
        self._levels = np.linspace(0.0, 1.0, self._quantiles.shape[1])
        self._mean = np.array([sketch.mean for sketch in sketches])
        spread = np.array([sketch.sd for sketch in sketches])
        # A feature that was constant has moved by very many of its standard deviations once it moves at all.
        self._sd = np.maximum(spread, 1e-9 * np.maximum(np.abs(self._mean), 1.0))
        self._maps = [rank_map(quantiles) for quantiles in self._quantiles]
        scores = [[sketch.level or _NO_SCORES, sketch.spread or _NO_SCORES] for sketch in sketches]
        self._score_mean, self._score_sd, self._effect = (
            np.array([[getattr(one, name) for one in pair] for pair in scores]) for name in ("mean", "sd", "effect")
        )  # (d, 2)
        self._total = np.array(rows, dtype=np.float64)[:, None]
        # What lies at or below each quantile: of equal ones the share of the last.
        self._below = np.stack([self._levels[np.searchsorted(q, q, side="right") - 1] for q in self._quantiles])
        self._edges = [len(self._levels) // BINS * k for k in range(1, BINS)]

    def compare(self, window: NDArray[np.float32]) -> Comparison:
        """Return the comparison of `window` (n, d)."""
        count = len(window)
        ordered = np.sort(window.T.astype(np.float64), axis=1)
        edges = self._quantiles[:, self._edges]
        pairs = zip(ordered, edges, strict=True)
        below = np.stack([column.searchsorted(edge, side="right") for column, edge in pairs]) / count
        inner = slice(1, -1)
        apart = np.abs(_quantiles(ordered, self._levels[inner]) - self._quantiles[:, inner]).mean(axis=1)
        return Comparison(
            p=self._p(ordered),
            psi=_stability(self._below[:, self._edges], below, count),
            wasserstein=np.minimum(apart / self._sd, MAX_SIZE),
            shift=np.clip((ordered.mean(axis=1) - self._mean) / self._sd, -MAX_SIZE, MAX_SIZE),
        )

    def _p(self, columns: Floats) -> Floats:
        """Return the p-value of each column (d, n) of a window."""
        scores = (rank_scores(column, ranked) for column, ranked in zip(columns, self._maps, strict=True))
        means = np.array([[level.mean(), spread.mean()] for level, spread in scores])
        error = self._score_sd * np.sqrt(self._effect * (1.0 / columns.shape[1] + 1.0 / self._total))
        z = as_normal((means - self._score_mean) / np.maximum(error, 1e-9), self._total / (10.0 * self._effect))
        return np.array([min(1.0, 2.0 * math.erfc(largest / math.sqrt(2.0))) for largest in z.max(axis=1)])


def as_normal(t: Floats, degrees: Floats) -> Floats:
    """Return the size of the normal deviates that are as rare as Student's `t` (Wallace 1959).

    To three per cent from three degrees of freedom on; below, where far out, it is too small, which is cautious.
    """
    return np.asarray((8 * degrees + 1) / (8 * degrees + 3) * np.sqrt(degrees * np.log1p(t**2 / degrees)))


def discoveries(p: Floats, rate: float) -> NDArray[np.bool_]:
    """Return which of the p-values (d,) Benjamini and Hochberg's rule rejects at a false discovery rate."""
    ordered = np.sort(p)
    passing = np.flatnonzero(ordered <= rate * np.arange(1, len(p) + 1) / len(p))
    return p <= ordered[passing[-1]] if len(passing) else np.zeros(len(p), dtype=bool)


def _stability(expected: Floats, actual: Floats, count: int) -> Floats:
    """Return the stability index from shares at or below the inner edges (d, BINS - 1); no bin counts as empty."""

    def shares(below: Floats) -> Floats:
        ends = np.zeros((len(below), 1)), np.ones((len(below), 1))
        return np.maximum(np.diff(np.hstack([ends[0], below, ends[1]]), axis=1), 0.5 / count)

    p, q = shares(expected), shares(actual)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=1))


def _quantiles(ordered: Floats, levels: Floats) -> Floats:
    """Return the quantiles (d, len(levels)) of rows that are sorted (d, n), interpolated as the sketches' are."""
    place = levels * (ordered.shape[1] - 1)
    low = np.minimum(place.astype(np.intp), max(ordered.shape[1] - 2, 0))
    part = place - low
    return np.asarray(ordered[:, low] * (1 - part) + ordered[:, np.minimum(low + 1, ordered.shape[1] - 1)] * part)
