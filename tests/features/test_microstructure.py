from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tests.features.conftest import hand_bars
from tests.inputs.conftest import sample_bars
from tradeloop.bars import Bars
from tradeloop.features import microstructure as book
from tradeloop.features import registered
from tradeloop.features.contract import violations
from tradeloop.features.microstructure import _vpin

QUOTE = {"book__bid_price": 99, "book__ask_price": 101, "book__bid_size": 2, "book__ask_size": 3}
NAN = float("nan")


def test_quotes_by_hand() -> None:
    bars = hand_bars(1, **QUOTE, book__bid_depth=6, book__ask_depth=2)
    assert book.log_quoted_spread(bars)[0] == pytest.approx(math.log(0.02))
    assert book.quote_imbalance(bars)[0] == pytest.approx(-0.2)
    assert book.depth_imbalance(bars)[0] == pytest.approx(0.5)
    # Little is bid for, so the next price is nearer to the bid: (99 · 3 + 101 · 2) / 5 = 99.8, mid 100.
    assert book.microprice_distance(bars)[0] == pytest.approx(-0.002)


def test_windows_over_quotes() -> None:
    bars = hand_bars(3, **QUOTE | {"book__ask_price": [101, 103, 101]}, book__bid_depth=[2, 6, 1], book__ask_depth=2)
    assert book.depth_imbalance_mean(bars, 3)[2] == pytest.approx((0 + 0.5 - 1 / 3) / 3)
    log = np.log([2 / 100, 4 / 101, 2 / 100])
    assert book.quoted_spread_zscore(bars, 3)[2] == pytest.approx((log[2] - log.mean()) / log.std(ddof=1))


def test_order_flow_in_units_of_size() -> None:
    bars = hand_bars(3, **QUOTE | {"book__bid_size": [1, 3, 5]}, book__order_flow=[4, -10, 3])
    assert book.order_flow_imbalance(bars, 1).tolist() == pytest.approx(np.arcsinh([4 / 2, -10 / 3, 3 / 4]))
    assert book.order_flow_imbalance(bars, 3)[2] == pytest.approx(np.arcsinh(-3 / 3))


def test_intensities() -> None:
    bars = hand_bars(4, book__updates=[2, 4, 6, 0], trades__count=[0, 0, 0, 0])
    quotes = book.quote_intensity(bars, 3)
    assert quotes[2:].tolist() == pytest.approx(np.log([1.51 / 1.01, 0.01 / 1.01]))
    assert book.trade_intensity(bars, 3)[2:].tolist() == [0, 0]


def test_trade_imbalance() -> None:
    bars = hand_bars(4, trades__buy_volume=[3, 0, 1, 0], trades__sell_volume=[1, 0, 3, 0])
    assert book.trade_imbalance(bars, 1).tolist() == [0.5, 0, -0.5, 0]
    assert book.trade_imbalance(bars, 2)[1:].tolist() == [0.5, -0.5, -0.5]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_impact_is_the_regression_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buy, sell, flow = rng.exponential(1, 40), rng.exponential(1, 40), rng.normal(0, 3, 40)
    close = 100 * np.exp(np.cumsum(0.01 * (buy - sell) + rng.normal(0, 0.01, 40)))
    bars = hand_bars(close, trades__buy_volume=buy, trades__sell_volume=sell, book__order_flow=flow)
    moves, window = np.diff(np.log(close)), slice(-30, None)
    slope = np.polyfit((buy - sell)[window], moves[window], 1)[0]
    assert book.kyle_lambda(bars, 30)[-1] == pytest.approx(slope * (buy + sell)[window].mean())
    expected = np.corrcoef(moves[window], flow[window])[0, 1]
    assert book.order_flow_correlation(bars, 30)[-1] == pytest.approx(expected)


def test_no_impact_without_trades_or_moves() -> None:
    nothing = hand_bars(np.linspace(100, 101, 8), trades__buy_volume=0, trades__sell_volume=0)
    assert book.kyle_lambda(nothing, 5)[-1] == 0
    still = hand_bars(8, trades__buy_volume=np.arange(8), trades__sell_volume=1)
    assert book.kyle_lambda(still, 5)[-1] == 0


def test_vpin_by_hand() -> None:
    # 8 traded, two buckets of 4, filled from the newest bar: 1 bought and 2 sold, and half of the 2 sold before: −2;
    # the other half and the 3 bought: +2. (2 + 2) / 8.
    buy, sell = np.array([3.0, 0, 1]), np.array([0.0, 2, 2])
    assert _vpin(buy, sell, 3, 2).tolist()[2] == 0.5
    assert _vpin(buy, sell, 3, 1)[2] == 0  # 4 bought, 4 sold
    assert _vpin(np.zeros(3), np.zeros(3), 3, 2)[2] == 0
    assert np.isnan(_vpin(np.array([NAN, 0, 1]), sell, 3, 2)[2])
    assert _vpin(buy, np.zeros(3), 3, 2)[2] == 1


def vpin_oracle(buy: np.ndarray, sell: np.ndarray, buckets: int) -> float:
    """Net volume is linear in volume within a bar: read it off at the buckets' edges."""
    volume = np.concatenate([[0], np.cumsum((buy + sell)[::-1])])
    net = np.concatenate([[0], np.cumsum((buy - sell)[::-1])])
    edges = np.linspace(0, volume[-1], buckets + 1)
    return float(np.abs(np.diff(np.interp(edges, volume, net))).sum() / volume[-1])


@given(seed=st.integers(0, 2**32 - 1), whole=st.booleans())
@settings(max_examples=60, deadline=None)
def test_vpin_cuts_volume_as_interpolation_does(seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    buy, sell = rng.exponential(1, (2, 60)) * (rng.random((2, 60)) < 0.8)
    if whole:  # buckets then end exactly where bars do
        buy, sell = np.floor(buy), np.floor(sell) + 1
    bars = hand_bars(60, trades__buy_volume=buy, trades__sell_volume=sell)
    assert book.vpin(bars, 60)[-1] == pytest.approx(vpin_oracle(buy, sell, book.BUCKETS), abs=1e-9)


def test_bulk_vpin_takes_the_side_from_the_return() -> None:
    rng = np.random.default_rng(3)
    close, volume = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 20))), rng.exponential(5, 20)
    moves = np.diff(np.log(close))
    score = [moves[i] / moves[i - 9 : i + 1].std(ddof=1) for i in range(9, 19)]
    bought = volume[-10:] * norm.cdf(score)
    expected = vpin_oracle(bought, volume[-10:] - bought, book.BUCKETS)
    assert book.bulk_vpin(hand_bars(close, volume), 10)[-1] == pytest.approx(expected)
    assert book.bulk_vpin(hand_bars(20), 10)[-1] == 0  # half bought, half sold


def test_the_bounce_of_closes_is_the_spread() -> None:
    rng = np.random.default_rng(1)
    close = 100 * (1 + 0.002 * rng.choice([-1, 1], 4000))  # 40 basis points apart, around a middle that stays
    spread = book.roll_spread(hand_bars(close), 3900)
    assert spread[-1] == pytest.approx(0.004, rel=0.03)
    moves = np.diff(np.log(close))
    covariance = np.cov(moves[-30:], moves[-31:-1])[0, 1]
    assert book.roll_spread(hand_bars(close), 30)[-1] == pytest.approx(2 * math.sqrt(-covariance))
    assert book.roll_spread(hand_bars(np.exp(np.linspace(0, 1, 40) ** 3)), 30)[-1] == 0  # moves follow moves


def ranged(high: np.ndarray, low: np.ndarray) -> Bars:
    bars = hand_bars(len(high))
    return Bars("HAND", bars.timestamp, low, high, low, high, bars.volume)


def test_highs_and_lows_hold_the_spread() -> None:
    bars = ranged(np.array([102.0, 103.0]), np.array([100.0, 100.5]))
    beta = math.log(1.02) ** 2 + math.log(103 / 100.5) ** 2
    gamma, k = math.log(1.03) ** 2, 3 - 2 * math.sqrt(2)
    alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
    assert alpha > 0
    expected = 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))
    assert book.corwin_schultz_spread(bars, 1)[1] == pytest.approx(expected)
    apart = ranged(np.array([101.0, 111.0]), np.array([100.0, 110.0]))
    assert book.corwin_schultz_spread(apart, 1)[1] == 0


def test_a_planted_spread_is_found_from_highs_and_lows() -> None:
    """A fine random walk whose highs are asks and lows bids: 60 basis points come back within a fifth."""
    rng = np.random.default_rng(4)
    path = 100 * np.exp(np.cumsum(rng.normal(0, 0.0001, (400, 400)).ravel()).reshape(400, 400))
    bars = ranged(path.max(axis=1) * 1.003, path.min(axis=1) * 0.997)
    assert book.corwin_schultz_spread(bars, 390)[-1] == pytest.approx(0.006, rel=0.2)


# On the real sample of order events, 10-second bars.
def columns(bars: Bars, *names: str) -> list[np.ndarray]:
    specs = {spec.name: spec for spec in registered(["microstructure"])}
    return [specs[name].function(bars) for name in names]


def test_the_contract_holds_on_the_real_book() -> None:
    bars = sample_bars(10)
    assert len(bars) == 179
    for spec in registered(["microstructure"], inputs=bars.inputs.keys()):
        assert violations(spec.function, bars, spec.lookback) == [], spec.name
        assert np.unique(spec.function(bars)[spec.lookback - 1 :]).size > 5, f"{spec.name} hardly moves"


def test_the_real_book_behaves_as_books_do() -> None:
    bars = sample_bars(10)
    move = np.log(bars.close / bars.open)
    spread, imbalance, flow, traded = columns(
        bars, "log_quoted_spread", "quote_imbalance", "order_flow_imbalance_1", "trade_imbalance_1"
    )
    assert (np.exp(spread) > 1e-6).all() and np.median(np.exp(spread)) == pytest.approx(1 / 78_390, rel=0.01)
    # Order flow moves the price while it comes (measured: correlation .65), and explains more of it than trades do.
    assert np.corrcoef(flow, move)[0, 1] > 0.6
    assert np.corrcoef(flow, move)[0, 1] > np.corrcoef(traded, move)[0, 1] > 0.2
    # The side with less on it gives way: the imbalance at the close goes with the next bar's move (measured: .27).
    assert np.corrcoef(imbalance[:-1], move[1:])[0, 1] > 0.15


def test_the_real_trades_have_an_impact() -> None:
    impact, toxic = columns(sample_bars(10), "kyle_lambda_60", "vpin_60")
    known = np.isfinite(impact)
    assert known.sum() == 179 - 60 and (impact[known] > 0).mean() > 0.9
    assert ((toxic[known] > 0.2) & (toxic[known] <= 1)).all()
