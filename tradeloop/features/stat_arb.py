"""Statistical arbitrage: the symbol and a context series as a pair whose spread may revert.

In each window the log close is regressed on the log of the series, ln C = a + b ln X + e, and all is read from the
residuals e of that one window: nothing is known of the hedge ratio but what the window says. A spread that moves by no
more than `STEADY` is none; neutral values stand for it.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import log_close
from tradeloop.features.compiled import compiled
from tradeloop.features.context import log_known
from tradeloop.features.registry import feature

STEADY = 1e-6
"""Standard deviation of a log price, or of a spread, below which it does not move."""

SINGULAR = 1e-6
"""Two regressors are one if 1 − correlation² is below this."""

LARGEST = 10.0
LONGEST = 120


@compiled
def _residuals(y: Floats, x: Floats, into: Floats) -> tuple[float, float, float]:
    """Write the residuals of y on x and a constant; return b, 0 where x does not move, and the variances of y and e."""
    count = len(y)
    mean_x, mean_y, squares, product, whole, left = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(count):
        mean_x += (x[i] - x[0]) / count
        mean_y += (y[i] - y[0]) / count
    for i in range(count):
        offset = x[i] - x[0] - mean_x
        squares += offset * offset
        product += offset * (y[i] - y[0] - mean_y)
    ratio = product / squares if squares > count * STEADY**2 else 0.0
    for i in range(count):
        own = y[i] - y[0] - mean_y
        into[i] = own - ratio * (x[i] - x[0] - mean_x)
        whole += own * own / count
        left += into[i] * into[i] / count
    return ratio, whole, left


@compiled
def _reversion(spread: Floats) -> tuple[float, float]:
    """Return the t statistic of g in Δe_t = g e_{t−1} + h Δe_{t−1} + u, and the slope of Δe_t on e_{t−1} alone."""
    count = len(spread)
    ee, ed, dd, ey, dy, yy, level, step = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(1, count):
        before, move = spread[i - 1], spread[i] - spread[i - 1]
        level += before * before
        step += before * move
        if i > 1:
            lagged = before - spread[i - 2]
            ee, ed, dd = ee + before * before, ed + before * lagged, dd + lagged * lagged
            ey, dy, yy = ey + before * move, dy + lagged * move, yy + move * move
    alone = step / level if level > 0 else 0.0
    determinant = ee * dd - ed * ed
    if min(yy, dd) <= count * STEADY**2 or determinant <= SINGULAR * ee * dd:
        return 0.0, alone
    g, h = (ey * dd - dy * ed) / determinant, (dy * ee - ey * ed) / determinant
    unexplained = 0.0
    for i in range(2, count):
        before, lagged = spread[i - 1], spread[i - 1] - spread[i - 2]
        unexplained += (spread[i] - before - g * before - h * lagged) ** 2
    error = math.sqrt(max(unexplained, SINGULAR * yy) / (count - 4) * dd / determinant)
    return min(max(g / error, -LARGEST), LARGEST), alone


@compiled
def _crossings(spread: Floats) -> float:
    """Return how often the spread changed sides, as a share of its steps; what is next to nothing has no side."""
    changes, side = 0, 0.0
    for value in spread:
        if abs(value) > STEADY:
            changes += int(side * value < 0)
            side = value
    return changes / (len(spread) - 1)


@compiled
def _pair(y: Floats, x: Floats, result: Floats, window: int) -> None:
    """Fill in the columns as rows; a window that holds a NaN keeps its own."""
    spread = np.empty(window)
    for t in range(LONGEST - 1, len(y)):
        hedge, whole, left = _residuals(y[t - window + 1 : t + 1], x[t - window + 1 : t + 1], spread)
        if np.isnan(left):
            continue
        result[0, t] = min(max(hedge, -LARGEST), LARGEST)
        result[1, t] = 1 - left / whole if whole > STEADY**2 else 0.0
        result[2:, t] = 0.0
        result[4, t] = math.log(window)
        if left > STEADY**2:
            result[2, t] = spread[-1] / math.sqrt(left)
            result[3, t], slope = _reversion(spread)
            life = -math.log(2) / math.log1p(max(slope, -0.5)) if slope < 0 else window
            result[4, t] = math.log(min(life, window))
            result[5, t] = _crossings(spread)


@feature(
    lookback=LONGEST,
    columns=tuple(
        f"{name}_{window}"
        for window in (60, LONGEST)
        for name in (
            "hedge_ratio",
            "explained",
            "spread_zscore",
            "spread_adf",
            "spread_log_half_life",
            "spread_crossings",
        )
    ),
    per_context=True,
)
def pair(bars: Bars, series: str) -> tuple[Floats, ...]:
    """Spread e of ln C against ln `series`, regressed over n bars, as many as the name ends with.

    hedge_ratio: b, within ±10, 0 where the series is flat; explained: R², 0 where C is flat; spread_zscore: e_t over
    its deviation; spread_adf: t statistic of the augmented Dickey–Fuller regression of e, no constant, one lag, within
    ±10, Engle, Granger (1987); spread_log_half_life: ln of −ln 2 / ln(1 + g), g the slope of Δe_t on e_{t−1}, from 0 to
    ln n; spread_crossings: share of the steps on which e changed sides. 0, and ln n, for a flat spread.
    """
    result = np.full((12, len(bars)), np.nan)
    y, x = log_close(bars), log_known(bars, series)
    for half, window in ((result[:6], 60), (result[6:], LONGEST)):
        _pair(y, x, half, window)
    return tuple(result)
