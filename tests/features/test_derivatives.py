from __future__ import annotations

import math

import numpy as np
import pytest

from tests.features.conftest import hand_bars
from tradeloop.features import derivatives as d

NAN = float("nan")


def test_liquidations_against_what_is_usual() -> None:
    bars = hand_bars(4, liquidations__long=[1, 0, 5, 0], liquidations__short=[1, 0, 1, 0])
    # 2, 0, 6, 0: the mean of three is 8/3, then 2
    found = d.liquidation_intensity(bars, 3)
    assert found[2:].tolist() == pytest.approx([math.log((6 / (8 / 3) + 0.01) / 1.01), math.log(0.01 / 1.01)])
    none = hand_bars(4, liquidations__long=0, liquidations__short=0)
    assert d.liquidation_intensity(none, 3)[2:].tolist() == [0, 0]
    assert d.liquidation_imbalance(none, 3)[2:].tolist() == [0, 0]


def test_longs_against_shorts() -> None:
    bars = hand_bars(3, liquidations__long=[3, 0, 1], liquidations__short=[1, 0, 5])
    assert d.liquidation_imbalance(bars, 3)[2] == pytest.approx((4 - 6) / 10)
    assert d.liquidation_imbalance(bars, 1).tolist() == pytest.approx([0.5, 0, -4 / 6])


def test_liquidations_as_a_share_of_what_was_traded() -> None:
    # 100 a bar times 2 units: 200 a bar
    bars = hand_bars(3, [2, 2, 2], liquidations__long=[50, 0, 150], liquidations__short=0)
    assert d.liquidation_share(bars, 3)[2] == pytest.approx(200 / 800)
    assert d.liquidation_share(hand_bars(2, [0, 0], liquidations__long=0, liquidations__short=0), 2)[1] == 0


def test_momentum_of_liquidations() -> None:
    amounts = np.concatenate([np.full(55, 1.0), np.full(5, 7.0)])
    bars = hand_bars(60, liquidations__long=amounts, liquidations__short=0)
    assert d.liquidation_momentum_5_60(bars)[-1] == pytest.approx(math.log((7 / 1.5 + 0.01) / 1.01))


def test_a_cascade_stands_out_from_the_bars_before_it() -> None:
    # Mean 2 and standard deviation 2/√3 of 1, 3, 1, 3: the limit is 2 + 2 √3 = 5.46.
    def last(amount: float) -> float:
        bars = hand_bars(5, liquidations__long=[1, 3, 1, 3, amount], liquidations__short=0)
        return d.liquidation_cascade(bars, 4)[-1]

    assert (last(5.4), last(5.5)) == (0, 1)
    assert math.isnan(last(NAN))
    bars = hand_bars(6, liquidations__long=[0, 0, 0, 0, 2, 2], liquidations__short=0)
    assert d.liquidation_cascade(bars, 4).tolist()[4:] == [1, 0]  # 2 among 0, 0, 0, 2 is no longer out of the way


def test_a_constant_amount_is_no_cascade() -> None:
    long, short = np.full(200, 0.3), np.zeros(200)
    long[100:], short[100:] = 0.1, 0.2  # together 0.30000000000000004
    bars = hand_bars(200, liquidations__long=long, liquidations__short=short)
    assert not d.liquidation_cascade(bars, 60)[60:].any()


def test_funding() -> None:
    rate, hours = [1e-4, 1e-4, 3e-4, -2e-4], [8, 8, 8, 4]
    bars = hand_bars(4, funding__rate=rate, funding__hours=hours, funding__hours_to_next=[6, 5, 4, 1])
    daily = np.array([0.03, 0.03, 0.09, -0.12])  # per cent
    assert d.funding_daily(bars).tolist() == pytest.approx(daily)
    assert d.funding_momentum(bars, 2)[2:].tolist() == pytest.approx([0.06, -0.15])
    assert d.funding_mean(bars, 4)[3] == pytest.approx(daily.mean())
    assert d.funding_zscore(bars, 4)[3] == pytest.approx((daily[3] - daily.mean()) / daily.std(ddof=1))
    assert d.funding_due(bars).tolist() == [0.75, 0.625, 0.5, 0.25]


def test_a_rate_that_does_not_change_has_no_zscore() -> None:
    assert d.funding_zscore(hand_bars(60, funding__rate=0.1 / 3, funding__hours=8), 48)[-1] == 0
