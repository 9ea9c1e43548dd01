r"""Markets with a known answer: the next bar's direction can be told with a planted accuracy, and no better.

All draws are independent; every bar is made in three steps.

1. **Range.** Log volatility is an AR(1) around a level, so that range can be forecast:
   :math:`h_t = 0.98\, h_{t-1} + 0.08\, a_t`, and the range as a fraction of the close is
   :math:`R_t = 0.006\, e^{h_t + 0.25\, b_t}` with normal :math:`a, b`.
2. **Signal.** The close lies at a uniform place in the range, :math:`u_t = (C - L)/(H - L)`: the close location, which
   anyone can read off the closed bar. With :math:`z_t = \Phi^{-1}(u_t)`, standard normal,
   :math:`P(\text{bar } t+1 \text{ closes above its open}) = \Phi(k z_t)`.
3. **Body.** The bar opens 2% of a range from the last close, on either side alike, and goes from there in the direction
   drawn, by a random share of what `u` and `R` leave room for. So the trade from the open of `t + 1` to its close
   carries the whole signal, and that open tells nothing.

Nothing but :math:`z_t` bears on the direction, so the Bayes-optimal accuracy is
:math:`E\,\Phi(k|z|) = 1/2 + \arctan(k)/\pi` (the chance that two normals of correlation :math:`k/\sqrt{1+k^2}` agree in
sign), and `k` follows from the accuracy asked for.

With `regimes` the market switches between calm and turbulent stretches (three times the range, 500 bars long on
average). In turbulence the sign of the relation turns: strength is sold. Which it is follows from closed bars, the mean
log range of the last ten, so the Bayes accuracy stays the same.

At `drift_bar` the concept drifts; bars before it are the very same as without. Directions of bars from there on

- ``sign_flip``: have the opposite relation;
- ``fading_edge``: have a `k` that goes to nothing in a straight line over `FADE_BARS`;
- ``new_regime``: follow the distance from the middle, :math:`z = \Phi^{-1}(|2u - 1|)`: closes at either end of the
  range are followed by rises, closes in the middle by falls;
- ``volatility_jump``: are as before, but ranges are three times as wide.

The answer holds for a horizon of one bar and the entry ``next_open``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from tradeloop.bars import COLUMNS, Floats, from_times
from tradeloop.config import SyntheticMarket, parse_interval
from tradeloop.errors import ConfigError
from tradeloop.sources.base import Source

BASE_RANGE = 0.006
MAX_RANGE = 0.5
TURBULENCE = np.log(3.0)
REGIME_BARS = 500
REGIME_MEMORY = 10
FADE_BARS = 2_000


@dataclass(frozen=True)
class Oracle:
    """The truth about a synthetic series of n bars.

    Attributes
    ----------
    p_up
        For each bar, the probability, given all closed bars, that the trade entered at the next bar's open is up at its
        close; shape (n,).
    accuracy_before, accuracy_after
        Bayes-optimal accuracy of trades that end before the drift, and from the drift bar on (the same without drift).
    """

    p_up: Floats
    accuracy_before: float
    accuracy_after: float


@dataclass(frozen=True)
class _Draws:
    """Independent draws, one a bar; of the same values whatever the settings."""

    location: Floats
    spread: Floats
    shock: Floats
    switch: Floats
    direction: Floats
    body: Floats
    gap: Floats
    trades: Floats


class Synthetic(Source):
    """Generates ``market.synthetic``; each symbol has a random stream of its own."""

    name = "synthetic"

    def read(self, symbol: str) -> pd.DataFrame:
        """Return the bar frame of a symbol; see `Source.read`."""
        planted = self._planted()
        draws = self._draws(symbol)
        probability = _probabilities(draws, planted)
        up = np.empty(planted.bars, dtype=bool)
        up[0] = draws.direction[0] < 0.5
        up[1:] = draws.direction[1:] < probability[:-1]
        log_range = _log_range(draws, planted)
        interval = np.timedelta64(parse_interval(self.market.interval)).astype("timedelta64[us]")
        start = planted.start if planted.start.tzinfo is None else planted.start.astimezone(UTC).replace(tzinfo=None)
        closes = np.datetime64(start, "us") + interval * np.arange(1, planted.bars + 1)
        columns = {"timestamp": from_times(closes), **_prices(draws, up, log_range)}
        return pd.DataFrame(columns, columns=list(COLUMNS))

    def oracle(self, symbol: str) -> Oracle:
        """Return the truth about a symbol's series."""
        planted = self._planted()
        strength = _strength(planted)
        accuracy = 0.5 + np.arctan(strength) / np.pi
        drift = planted.bars if planted.drift_bar is None else planted.drift_bar
        before = float(accuracy[:drift].mean())
        after = float(accuracy[drift:].mean()) if drift < planted.bars else before
        return Oracle(_probabilities(self._draws(symbol), planted), before, after)

    def _planted(self) -> SyntheticMarket:
        market = self.market
        if market.calendar != "24/7":
            raise ConfigError(
                f"a synthetic market trades round the clock: calendar must be 24/7, got {market.calendar!r}"
            )
        planted = market.synthetic
        if planted.drift_bar is not None and planted.drift_bar >= planted.bars:
            raise ConfigError(f"drift_bar must be below bars = {planted.bars}, got {planted.drift_bar}")
        return planted

    def _draws(self, symbol: str) -> _Draws:
        digest = hashlib.sha256(f"{self.seed}/{symbol}".encode()).digest()
        # A stream for each kind of draw, so that a longer series begins with the shorter one.
        streams = np.random.SeedSequence(int.from_bytes(digest[:16], "big")).spawn(8)
        location, spread, shock, switch, direction, body, gap, trades = map(np.random.default_rng, streams)
        n = self.market.synthetic.bars
        return _Draws(
            # 2^-53 away from 0: a close at the very end of its range would have an infinite z.
            location=np.maximum(location.random(n), 2.0**-53),
            spread=spread.standard_normal(n),
            shock=shock.standard_normal(n),
            switch=switch.random(n),
            direction=direction.random(n),
            body=body.uniform(0.05, 1.0, n),
            gap=gap.standard_normal(n),
            trades=trades.standard_normal(n),
        )


def _strength(planted: SyntheticMarket) -> Floats:
    """Return `k` for the direction of each bar."""
    strength = np.full(planted.bars, np.tan(np.pi * (planted.bayes_accuracy - 0.5)))
    if planted.drift_bar is not None and planted.drift == "fading_edge":
        since = np.arange(planted.bars) - planted.drift_bar
        strength *= 1.0 - np.clip(since / FADE_BARS, 0.0, 1.0)
    return strength


def _turbulent(draws: _Draws) -> Floats:
    """Return 0 and 1 by turns, for stretches of geometric length."""
    return (np.cumsum(draws.switch < 1.0 / REGIME_BARS) % 2).astype(np.float64)


def _volatility(draws: _Draws, planted: SyntheticMarket) -> Floats:
    """Return the log of the range over `BASE_RANGE`, without drift."""
    state = lfilter([0.08], [1.0, -0.98], draws.shock) + 0.25 * draws.spread
    return np.asarray(state + TURBULENCE * _turbulent(draws) if planted.regimes else state)


def _log_range(draws: _Draws, planted: SyntheticMarket) -> Floats:
    result: Floats = np.log(BASE_RANGE) + _volatility(draws, planted)
    if planted.drift_bar is not None and planted.drift == "volatility_jump":
        result[planted.drift_bar :] += TURBULENCE
    return result


def _probabilities(draws: _Draws, planted: SyntheticMarket) -> Floats:
    """Return the probability that the bar after each bar goes up."""
    n, location = planted.bars, draws.location
    signal = ndtri(location)
    if planted.regimes:
        volatility = _volatility(draws, planted)
        recent = lfilter(np.ones(REGIME_MEMORY), [1.0], volatility) / np.minimum(np.arange(n) + 1, REGIME_MEMORY)
        signal = np.where(recent > TURBULENCE / 2, -signal, signal)
    if planted.drift_bar is not None:
        new = np.arange(1, n + 1) >= planted.drift_bar  # the direction decided here is the next bar's
        if planted.drift == "sign_flip":
            signal = np.where(new, -signal, signal)
        elif planted.drift == "new_regime":
            signal = np.where(new, ndtri(np.clip(np.abs(2 * location - 1), 2.0**-53, 1 - 2.0**-53)), signal)
    strength = _strength(planted)
    return np.asarray(ndtr(np.append(strength[1:], strength[-1]) * signal))


def _prices(draws: _Draws, up: np.ndarray, log_range: Floats) -> dict[str, Floats]:
    """Return open, high, low, close and volume; closes lie at exactly the place that was drawn."""
    width = np.minimum(np.exp(log_range), MAX_RANGE)
    # Open over close: above 1 after a fall. The body takes a share of the room on its side of the close.
    move = np.where(up, -draws.location, 1.0 - draws.location) * draws.body * width
    gap = 0.02 * width * draws.gap
    log_close = np.log(100.0) + np.cumsum(gap - np.log1p(move))
    close = np.exp(log_close)
    columns: dict[str, Floats] = {
        "open": close * (1.0 + move),
        "high": close * (1.0 + (1.0 - draws.location) * width),
        "low": close * (1.0 - draws.location * width),
        "close": close,
        "volume": np.exp(10.0 + 0.5 * (log_range - np.log(BASE_RANGE)) + 0.4 * draws.trades),
    }
    return columns
