"""Events: how near the scheduled ones are, and how much news there is.

The calendar is the one that stood at the bar's close: an event counts from when it was announced, where it was then
said to be. News count from when they were published.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import total
from tradeloop.features.usual import against_mean, burst

UNTIL, SINCE, WEIGHT = "events.hours_until", "events.hours_since", "events.importance_next"
NEWS = "news.count"

CAP = 168.0
"""Hours (a week) beyond which an event is as good as none."""

MOST = 3.0
"""The importance of the most important events."""


def _within(hours: Floats, limit: float) -> Floats:
    return np.where(np.isnan(hours), np.nan, np.asarray(hours <= limit, dtype=np.float64))


@feature(lookback=1, needs=(UNTIL,))
def time_until_event(bars: Bars) -> Floats:
    """Time until the next scheduled event in weeks, at most 1: min(hours, 168) / 168."""
    return np.minimum(bars.inputs[UNTIL], CAP) / CAP


@feature(lookback=1, needs=(SINCE,))
def time_since_event(bars: Bars) -> Floats:
    """Time since the last scheduled event in weeks, at most 1: min(hours, 168) / 168."""
    return np.minimum(bars.inputs[SINCE], CAP) / CAP


@feature(lookback=1, windows=(1, 24), needs=(UNTIL,))
def event_within_hours(bars: Bars, window: int) -> Floats:
    """1 where the next scheduled event is at most `window` hours away, else 0."""
    return _within(bars.inputs[UNTIL], window)


@feature(lookback=1, windows=(1, 24), needs=(SINCE,))
def event_past_hours(bars: Bars, window: int) -> Floats:
    """1 where the last scheduled event was at most `window` hours ago, else 0."""
    return _within(bars.inputs[SINCE], window)


@feature(lookback=1, needs=(UNTIL, WEIGHT))
def event_weight_24(bars: Bars) -> Floats:
    """How much the next scheduled event weighs, from ⅓ to 1, if it is at most 24 hours away; else 0."""
    return _within(bars.inputs[UNTIL], 24.0) * bars.inputs[WEIGHT] / MOST


@feature(lookback=lambda window: window, windows=(20, 100), needs=(NEWS,))
def news_intensity(bars: Bars, window: int) -> Floats:
    """Log of the bar's news over their `window`-bar mean: ln((n / mean n + 0.01) / 1.01); 0 where there were none."""
    return against_mean(bars.inputs[NEWS], window)


@feature(lookback=lambda window: window, windows=(24,), needs=(NEWS,))
def news_count(bars: Bars, window: int) -> Floats:
    """News over `window` bars: ln(1 + n)."""
    return np.log1p(total(bars.inputs[NEWS], window))


@feature(lookback=lambda window: window + 1, windows=(60,), needs=(NEWS,))
def news_burst(bars: Bars, window: int) -> Floats:
    """1 where the bar's news lie 3 standard deviations above the mean of the `window` bars before, else 0."""
    return burst(bars.inputs[NEWS], window)
