"""The rolling kernels against NumPy on each window by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.features import rolling

RNG = np.random.default_rng(7)
X, Y = RNG.normal(3, 1, 150), RNG.normal(0, 2, 150)


def each_window(x: np.ndarray, window: int, value: Callable[[np.ndarray], float]) -> np.ndarray:
    return np.array([np.nan if i < window - 1 else value(x[i - window + 1 : i + 1]) for i in range(len(x))])


@pytest.mark.parametrize("window", [*range(1, 34), 60, 63, 64, 65, 149, 150])
def test_total_and_mean_of_every_window_length(window: int) -> None:
    np.testing.assert_allclose(rolling.total(X, window), each_window(X, window, np.sum), rtol=1e-13)
    np.testing.assert_allclose(rolling.mean(X, window), each_window(X, window, np.mean), rtol=1e-13)


@pytest.mark.parametrize("window", [2, 3, 7, 8, 20, 60, 150])
def test_moments_and_zscore(window: int) -> None:
    average, variance = rolling.moments(X, window)
    np.testing.assert_allclose(average, each_window(X, window, np.mean), rtol=1e-13)
    np.testing.assert_allclose(variance, each_window(X, window, lambda x: np.var(x, ddof=1)), rtol=1e-12)
    expected = each_window(X, window, lambda x: (x[-1] - x.mean()) / x.std(ddof=1))
    np.testing.assert_allclose(rolling.zscore(X, window), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("window", [2, 3, 20, 60, 150])
def test_correlation_pair_and_time_correlation(window: int) -> None:
    pairs = [slice(i - window + 1, i + 1) for i in range(window - 1, 150)]
    correlation = [np.corrcoef(X[p], Y[p])[0, 1] for p in pairs]
    trend = [np.corrcoef(X[p], np.arange(window))[0, 1] for p in pairs]
    rows = slice(window - 1, None)
    np.testing.assert_allclose(rolling.correlation(X, Y, window)[rows], correlation, rtol=1e-10, atol=1e-12)
    slopes, correlations, residuals = (found[rows] for found in rolling.pair(Y, X, window))
    slope = np.clip([np.polyfit(X[p], Y[p], 1)[0] for p in pairs], -rolling.STEEPEST, rolling.STEEPEST)
    np.testing.assert_allclose(slopes, slope, rtol=1e-9)
    np.testing.assert_allclose(correlations, correlation, rtol=1e-10, atol=1e-12)
    left = [Y[p] - b * X[p] - np.mean(Y[p] - b * X[p]) for p, b in zip(pairs, slope, strict=True)]
    if window > 2:  # two points lie on their line
        np.testing.assert_allclose(residuals, [r[-1] / r.std(ddof=1) for r in left], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(rolling.time_correlation(X, window)[rows], trend, rtol=1e-10, atol=1e-12)
    assert np.isnan(rolling.correlation(X, Y, window)[: window - 1]).all()


def test_variance_survives_a_large_offset() -> None:
    far = X + 1e9
    expected = rolling.moments(far - 1e9, 20)[1][19:]
    np.testing.assert_allclose(rolling.moments(far, 20)[1][19:], expected, rtol=1e-6)
    plain = (rolling.total(far**2, 20) - rolling.total(far, 20) ** 2 / 20)[19:] / 19
    assert np.abs(plain / expected - 1).max() > 0.1  # what a sum of squares makes of it


@pytest.mark.parametrize("value", [0.0, 0.1, 123.4567, 1e9])
def test_a_constant_is_flat_exactly(value: float) -> None:
    flat = np.full(100, value)
    assert (rolling.moments(flat, 23)[1][22:] == 0).all()
    for result in (
        rolling.zscore(flat, 23),
        rolling.correlation(flat, Y[:100], 23),
        rolling.correlation(Y[:100], flat, 23),
        *rolling.pair(Y[:100], flat, 23)[:2],
        rolling.pair(flat, Y[:100], 23)[1],
        rolling.time_correlation(flat, 23),
    ):
        assert (result[22:] == 0).all() and np.isnan(result[:22]).all()


def test_rounding_about_a_constant_is_flat_too() -> None:
    nearly = 0.004 * (1 + RNG.choice([0, 2e-16, 4e-16], 100))
    assert len(np.unique(nearly)) > 1
    for result in (
        rolling.zscore(nearly, 20),
        rolling.time_correlation(nearly, 20),
        rolling.correlation(nearly, Y[:100], 20),
        rolling.correlation(Y[:100], nearly, 20),
        *rolling.pair(Y[:100], nearly, 20)[:2],
        *rolling.pair(nearly, nearly, 20)[1:],
    ):
        assert (result[19:] == 0).all()


@pytest.mark.parametrize("alpha", [1 / 14, 0.06, 2 / 27, 2 / 13, 0.5])
def test_ema_is_the_weighted_mean_of_its_memory(alpha: float) -> None:
    x = RNG.normal(0, 1, 600)
    window = rolling.memory(alpha)
    weights = (1 - alpha) ** np.arange(window)[::-1]
    assert (1 - alpha) ** window <= rolling.FORGOTTEN
    expected = each_window(x, window, lambda part: np.average(part, weights=weights))
    np.testing.assert_allclose(rolling.ema(x, alpha), expected, rtol=1e-9, atol=1e-14)


def test_ema_is_that_of_talib_but_for_what_it_forgets() -> None:
    x = 100 + np.cumsum(RNG.normal(0, 1, 2000))
    np.testing.assert_allclose(rolling.ema(x, 2 / 27)[500:], talib.EMA(x, 26)[500:], rtol=1e-4)


KERNELS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "total": rolling.total,
    "zscore": rolling.zscore,
    "correlation": lambda x, window: rolling.correlation(x, Y[: len(x)], window),
    "time_correlation": rolling.time_correlation,
    "variance": lambda x, window: rolling.moments(x, window)[1],
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_nan_spoils_only_the_windows_that_hold_it(kernel: str) -> None:
    hole = X.copy()
    hole[70] = np.nan
    result, whole = KERNELS[kernel](hole, 20), KERNELS[kernel](X, 20)
    assert np.isnan(result[70:90]).all()
    np.testing.assert_array_equal(np.delete(result, range(70, 90)), np.delete(whole, range(70, 90)))


@settings(deadline=None, max_examples=60)
@given(start=st.integers(0, 100), window=st.integers(2, 49), kernel=st.sampled_from(["total", "zscore", "variance"]))
def test_any_slice_gives_the_same_bits(start: int, window: int, kernel: str) -> None:
    whole = KERNELS[kernel](X, window)
    np.testing.assert_array_equal(KERNELS[kernel](X[start:], window)[window - 1 :], whole[start + window - 1 :])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [0, 1, 19])
def test_fewer_bars_than_the_window_are_all_nan(kernel: str, size: int) -> None:
    result = KERNELS[kernel](X[:size], 20)
    assert result.shape == (size,) and np.isnan(result).all()


def test_lag_and_log_return() -> None:
    np.testing.assert_array_equal(rolling.lag(np.array([1.0, 2.0, 3.0]), 2), [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(rolling.lag(np.array([1.0, 2.0]), 5), [np.nan, np.nan])
    np.testing.assert_allclose(rolling.log_return(np.array([1.0, np.e, np.e**3]), 1), [np.nan, 1.0, 2.0])


def test_ratio_tells_an_empty_denominator_from_an_unknown_one() -> None:
    numerator, denominator = np.array([1.0, 1.0, np.nan, 1.0, np.nan]), np.array([2.0, 0.0, 0.0, np.nan, 2.0])
    np.testing.assert_array_equal(rolling.ratio(numerator, denominator, empty=7.0), [0.5, 7.0, np.nan, np.nan, np.nan])
