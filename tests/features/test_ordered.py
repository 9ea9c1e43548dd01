"""Rolling order statistics against pandas and NumPy on each window by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.features import ordered

RNG = np.random.default_rng(11)
X = RNG.normal(0, 1, 300)
TIES = RNG.integers(0, 4, 300).astype(float)


@pytest.mark.parametrize("values", [X, TIES], ids=["distinct", "ties"])
@pytest.mark.parametrize("window", [1, 2, 5, 20, 60, 300])
def test_against_pandas(values: np.ndarray, window: int) -> None:
    rolling = pd.Series(values).rolling(window)
    np.testing.assert_array_equal(ordered.maximum(values, window), rolling.max())
    np.testing.assert_array_equal(ordered.minimum(values, window), rolling.min())
    np.testing.assert_allclose(ordered.rank(values, window), rolling.rank(pct=True), rtol=1e-14)
    low, high, _ = ordered.order(values, window, 0.2, 0.8)
    np.testing.assert_allclose(low, rolling.quantile(0.2), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(high, rolling.quantile(0.8), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(ordered.quantile(values, window, 0.5), rolling.median(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("values", [X, TIES], ids=["distinct", "ties"])
@pytest.mark.parametrize("window", [1, 7, 60])
def test_ages_tell_the_newest_from_the_oldest(values: np.ndarray, window: int) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    oldest, newest = window - 1 - windows.argmax(axis=1), windows[:, ::-1].argmax(axis=1)
    np.testing.assert_array_equal(ordered.age_of_maximum(values, window, oldest=True)[window - 1 :], oldest)
    np.testing.assert_array_equal(ordered.age_of_maximum(values, window)[window - 1 :], newest)
    np.testing.assert_array_equal(ordered.age_of_minimum(-values, window)[window - 1 :], newest)
    np.testing.assert_array_equal(ordered.age_of_minimum(-values, window, oldest=True)[window - 1 :], oldest)


KERNELS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "maximum": ordered.maximum,
    "minimum": ordered.minimum,
    "age": ordered.age_of_maximum,
    "rank": ordered.rank,
    "quantile": lambda x, window: ordered.quantile(x, window, 0.3),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_nan_spoils_only_the_windows_that_hold_it(kernel: str) -> None:
    hole = X.copy()
    hole[[0, 70]] = np.nan
    result, whole = KERNELS[kernel](hole, 20), KERNELS[kernel](X, 20)
    spoilt = [*range(20), *range(70, 90)]
    assert np.isnan(result[spoilt]).all()
    np.testing.assert_array_equal(np.delete(result, spoilt), np.delete(whole, spoilt))


@settings(deadline=None, max_examples=60)
@given(
    start=st.integers(0, 200), window=st.integers(1, 60), kernel=st.sampled_from(sorted(KERNELS)), ties=st.booleans()
)
def test_any_slice_gives_the_same_bits(start: int, window: int, kernel: str, ties: bool) -> None:
    values = TIES if ties else X
    part = KERNELS[kernel](values[start:], window)[window - 1 :]
    np.testing.assert_array_equal(part, KERNELS[kernel](values, window)[start + window - 1 :])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [0, 1, 19])
def test_fewer_bars_than_the_window_are_all_nan(kernel: str, size: int) -> None:
    result = KERNELS[kernel](X[:size], 20)
    assert result.shape == (size,) and np.isnan(result).all()
