from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.features.conftest import hand_bars
from tradeloop.features import options as o

SMILE = {"options__put_iv": 0.6, "options__call_iv": 0.45, "options__atm_iv": 0.5}


def test_the_smile_by_hand() -> None:
    bars = hand_bars(1, **SMILE, options__far_iv=0.4)
    assert o.iv_skew(bars)[0] == pytest.approx(0.3)
    assert o.iv_butterfly(bars)[0] == pytest.approx(0.05)
    assert o.log_iv(bars)[0] == pytest.approx(math.log(0.5))
    assert o.iv_term_slope(bars)[0] == pytest.approx(math.log(0.8))


def test_windows_over_the_smile() -> None:
    bars = hand_bars(4, **SMILE | {"options__atm_iv": [0.5, 0.4, 0.5, 0.6]})
    skew = 0.15 / np.array([0.4, 0.5, 0.6])
    assert o.iv_skew_zscore(bars, 3)[3] == pytest.approx((skew[2] - skew.mean()) / skew.std(ddof=1))
    log = np.log([0.4, 0.5, 0.6])
    assert o.iv_zscore(bars, 3)[3] == pytest.approx((log[2] - log.mean()) / log.std(ddof=1))
    assert o.iv_change(bars, 1)[1:].tolist() == pytest.approx(np.log([0.8, 1.25, 1.2]))
    assert o.iv_zscore(hand_bars(4, **SMILE), 3)[3] == 0


def test_implied_against_realised() -> None:
    """Moves of 1 % an hour are 0.01 · √8766 = 93.6 % a year."""
    close = 100 * np.exp(0.01 * np.array([0, 1, 0, 1, 0]))
    bars = hand_bars(close, options__atm_iv=0.5)
    assert o.iv_premium(bars, 4)[4] == pytest.approx(math.log(0.5 / (0.01 * math.sqrt(8766))))
    # The same moves over a weekend of 60 hours in place of one: less a year.
    apart = bars.timestamp.copy()
    apart[3:] += np.timedelta64(60, "h")
    weekend = replace(bars, timestamp=apart)
    assert o.iv_premium(weekend, 4)[4] == pytest.approx(math.log(0.5 / math.sqrt(4e-4 * 8766 / 64)))
    assert o.iv_premium(hand_bars(5, options__atm_iv=0.5), 4)[4] == pytest.approx(math.log(50))  # still: 1 % a year


def test_puts_against_calls() -> None:
    bars = hand_bars(
        3,
        options__put_volume=[3, 0, 1],
        options__call_volume=[1, 0, 0],
        options__put_open_interest=[10, 0, 30],
        options__call_open_interest=[30, 0, 10],
    )
    assert o.put_volume_share(bars, 1).tolist() == [0.75, 0.5, 1]
    assert o.put_volume_share(bars, 3)[2] == pytest.approx(0.8)
    assert o.put_interest_share(bars).tolist() == [0.25, 0.5, 0.75]
    assert o.open_interest_change(bars, 1)[1:].tolist() == pytest.approx([-math.log(41), math.log(41)])


def test_unusual_activity() -> None:
    counts = {"options__put_volume": [3, 0, 1, 8], "options__call_volume": [1, 2, 0, 1]}
    bars = hand_bars(4, **counts, options__put_open_interest=40, options__call_open_interest=20)
    traded = np.array([2.0, 1.0, 9.0])
    assert o.options_activity(bars, 3)[3] == pytest.approx(math.log((9 / 4 + 0.01) / 1.01))
    assert o.options_activity_zscore(bars, 3)[3] == pytest.approx((9 - 4) / traded.std(ddof=1))
    assert o.options_turnover(bars, 3)[3] == pytest.approx(math.log1p(4 / 60))
    none = hand_bars(4, **counts, options__put_open_interest=0, options__call_open_interest=0)
    assert o.options_turnover(none, 3)[3] == 0
