"""The tag, and the table of features for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest

from tradeloop.bars import Bars
from tradeloop.features import families, feature, registered, registry
from tradeloop.features.registry import column_prefix


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_definitions", [])
    yield


def test_windows_columns_and_context_become_columns(scratch: None, daily: Bars) -> None:
    @feature(lookback=lambda window: window + 1, windows=(2, 5), columns=("up", "down"), per_context=True)
    def moves(bars: Bars, series: str, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Moves of `series` over `window` bars."""
        return bars.context[series] * window, -bars.context[series] * window

    specs = registered(context=["SP500", "WTI"])
    assert [spec.name for spec in specs] == [
        f"{series}_{side}_{window}" for series in ("sp500", "wti") for window in (2, 5) for side in ("up", "down")
    ]
    last = specs[-1]
    assert (last.lookback, last.context, last.doc) == (6, "WTI", "Moves of WTI over 5 bars.")
    np.testing.assert_array_equal(last.function(daily), -5 * daily.context["WTI"])
    assert registered() == []


def test_a_feature_is_returned_unchanged_and_needs_a_definition(scratch: None, daily: Bars) -> None:
    @feature(lookback=1, recursive=True, intraday=True)
    def plain(bars: Bars) -> np.ndarray:
        """Nothing."""
        return np.zeros(len(bars))

    assert plain(daily).shape == (len(daily),)
    (spec,) = registered()
    assert spec.recursive and spec.intraday and spec.family == "test_registry" and spec.context is None
    assert registered(interval=timedelta(days=1)) == []
    with pytest.raises(TypeError, match="needs a docstring"):
        feature(lookback=1)(lambda bars: bars.close)


def test_families_stand_in_their_canonical_order() -> None:
    assert families()[:3] == ("trend", "momentum", "oscillators") and families()[-1] == "alpha158"
    assert [spec.name for spec in registered(["volume", "trend"])] == [
        spec.name for spec in registered() if spec.family in ("trend", "volume")
    ]


def test_column_prefix_has_only_letters_digits_and_underscores() -> None:
    assert [column_prefix(name) for name in ("SP500", "BRK.B", "EUR-USD")] == ["sp500", "brk_b", "eur_usd"]
