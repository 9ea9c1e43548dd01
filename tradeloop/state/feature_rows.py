"""Feature rows as the predictor gets them, wherever they were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Times

NAT = np.datetime64("NaT", "us")


@dataclass(frozen=True)
class OnlineRows:
    """Feature rows, one a symbol asked for.

    Attributes
    ----------
    vectors
        float32 (n, d) in the schema's order; a row that was not found is all NaN, a found one may hold NaN.
    feature_time
        Event times, ``datetime64[us]`` UTC, NaT where not found.
    found
        bool (n,).
    """

    vectors: NDArray[np.float32]
    feature_time: Times
    found: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.found)

    @classmethod
    def of(cls, vectors: NDArray[np.float32], feature_time: Times) -> OnlineRows:
        """Return rows with `found` worked out: a row that is NaN throughout holds nothing to predict from."""
        found = ~(np.isnat(feature_time) | np.isnan(vectors).all(axis=1))
        if not found.all():
            vectors = np.where(found[:, None], vectors, np.float32(np.nan))
            feature_time = np.where(found, feature_time, NAT)
        return cls(vectors, feature_time, found)

    @classmethod
    def empty(cls, rows: int, features: int) -> OnlineRows:
        """Return `rows` rows, none found, to be filled in place."""
        return cls(
            np.full((rows, features), np.nan, dtype=np.float32), np.full(rows, NAT), np.zeros(rows, dtype=np.bool_)
        )

    def at(self, places: Sequence[int]) -> OnlineRows:
        """Return the rows at `places`, in their order."""
        chosen = list(places)
        return OnlineRows(self.vectors[chosen], self.feature_time[chosen], self.found[chosen])
