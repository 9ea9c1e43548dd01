"""Small training matrices with a signal that is known because it was planted."""

from __future__ import annotations

import hashlib

import numpy as np

from tradeloop.config import Target
from tradeloop.dataset import Matrix
from tradeloop.schema import Schema

SIGNAL = 3  # the first features carry the signal, the others are noise


def planted(
    bars: int = 400, *, symbols: int = 3, width: int = 6, strength: float = 1.0, seed: int = 0, shuffled: bool = False
) -> Matrix:
    """Return a panel of `symbols` per bar, one hour apart, whose labels end one bar later.

    Log odds of up are ``1.2 · strength`` times the mean of the signal features, scaled to unit variance; the return's
    mean moves with them, and the log range follows the first feature. `shuffled` draws labels from other rows.
    """
    rng = np.random.default_rng(seed)
    n = bars * symbols
    timestamp = np.repeat(np.datetime64("2020-01-01", "us") + np.arange(bars) * np.timedelta64(1, "h"), symbols)
    x = rng.normal(size=(n, width)).astype(np.float32)
    signal = x[:, :SIGNAL].sum(axis=1, dtype=np.float64) / np.sqrt(SIGNAL)
    direction = (rng.random(n) < 1 / (1 + np.exp(-1.2 * strength * signal))).astype(np.float64)
    y: dict[Target, np.ndarray] = {
        "direction": direction,
        "return": 0.01 * (strength * signal + rng.normal(size=n)),
        "range": -4.5 + 0.4 * strength * x[:, 0].astype(np.float64) + 0.3 * rng.normal(size=n),
    }
    if shuffled:
        y = {target: rng.permutation(values) for target, values in y.items()}
    names = tuple(f"f{i}" for i in range(width))
    return Matrix(
        schema=Schema("test", names, hashlib.sha256("".join(names).encode()).hexdigest()),
        x=x,
        y=y,
        symbol=np.array([f"S{i % symbols}" for i in range(n)], dtype=object),
        timestamp=timestamp,
        label_end=timestamp + np.timedelta64(1, "h"),
    )
