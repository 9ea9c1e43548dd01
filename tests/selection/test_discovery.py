"""The search finds what is planted and nothing in noise, from the training rows alone, and counts what it tries."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.features.conftest import market_bars, market_params
from tradeloop.bars import Bars
from tradeloop.config import Discovery
from tradeloop.dataset import Matrix
from tradeloop.errors import DataError
from tradeloop.features import FeatureSpec, compute, registered
from tradeloop.features.discovered import discovered
from tradeloop.features.engine import schema_hash
from tradeloop.schema import Schema
from tradeloop.selection.discovery import Search, draw, search

SYMBOLS = ("AAPL", "IBM", "MSFT")
COLUMNS = ("return_5", "rsi_14", "log_volatility_20", "volume_zscore_20", "close_location", "streak", "gap", "return_1")
PLANTED = "return_5__times__volume_zscore_20__lag1"
CONFIG = Discovery(trials=200, lags=1)


@cache
def known() -> tuple[FeatureSpec, ...]:
    return tuple(spec for spec in registered() if spec.name in COLUMNS)


@cache
def market() -> tuple[Matrix, dict[str, Bars]]:
    """Real bars and features of three symbols; the labels are noise."""
    names = tuple(spec.name for spec in known())
    schema = Schema("us_daily", names, schema_hash(known()), "1d", market_params("us_daily").active.calendar)
    bars = {symbol: replace(market_bars("us_daily", symbol), context={}) for symbol in SYMBOLS}
    times = bars["AAPL"].timestamp[-1000:-1]
    ends = bars["AAPL"].timestamp[-999:]
    x = np.stack([compute(bars[symbol], schema)[-1000:-1] for symbol in SYMBOLS], axis=1)
    n, width = len(times) * len(SYMBOLS), len(names)
    y = np.random.default_rng(0).normal(size=n)
    return (
        Matrix(
            schema=schema,
            x=x.reshape(n, width),
            y={"direction": (y > 0).astype(float), "return": y, "range": y},
            symbol=np.tile(np.array(SYMBOLS, dtype=object), len(times)),
            timestamp=np.repeat(times, len(SYMBOLS)),
            label_end=np.repeat(ends, len(SYMBOLS)),
        ),
        bars,
    )


def planted(strength: float, seed: int = 1) -> Matrix:
    """Return the matrix with a return that goes with the planted column by ranks, as far as `strength`."""
    matrix, bars = market()
    (spec,) = discovered([PLANTED], known())
    y = np.random.default_rng(seed).normal(size=len(matrix))
    for number, symbol in enumerate(SYMBOLS):
        values = spec.function(bars[symbol])[-1000:-1]
        y[number :: len(SYMBOLS)] += strength * np.clip(values, -3, 3)
    return replace(matrix, y=matrix.y | {"return": y})


def run(matrix: Matrix, config: Discovery = CONFIG, rows: np.ndarray | None = None, seed: int = 3) -> Search:
    rows = np.arange(len(matrix)) if rows is None else rows
    return search(matrix, market()[1], known(), "return", rows, config=config, embargo=2, seed=seed)


def all_candidates() -> list[str]:
    return draw(COLUMNS, CONFIG.model_copy(update={"trials": 10**6}), seed=0)


def test_a_planted_interaction_is_found_among_all_candidates() -> None:
    every = len(all_candidates())
    found = run(planted(0.25), CONFIG.model_copy(update={"trials": 10**6}))
    assert found.trials == every > 300
    best = found.shortlist[0]
    assert best.confirmed
    assert {"return_5", "volume_zscore_20"} <= set(best.name.replace("__lag1", "").split("__"))
    assert min(best.older, best.newer) > 0.1
    assert len(found.shortlist) == CONFIG.shortlist


def test_noise_is_confirmed_no_more_often_than_alpha_says() -> None:
    """Forty markets of noise on real features: at 0.05 two are expected to have a confirmation."""
    config = Discovery(trials=40, lags=1, shortlist=5, alpha=0.05)
    matrix, _ = market()
    wrong = 0
    for seed in range(40):
        y = np.random.default_rng(seed).normal(size=len(matrix))
        found = run(replace(matrix, y=matrix.y | {"return": y}), config, seed=seed)
        wrong += any(one.confirmed for one in found.shortlist)
    assert wrong <= 6  # with probability 0.997 if each has a chance of 0.05


def test_without_the_second_half_of_the_search_noise_would_be_found() -> None:
    """The best of many is good by luck: in the rows that chose it, the shortlist looks well."""
    found = run(market()[0])
    error = 1 / np.sqrt(0.55 * len(market()[0]))
    assert np.mean([abs(one.older) for one in found.shortlist]) > 1.5 * error
    assert abs(np.mean([np.sign(one.older) * one.newer for one in found.shortlist])) < 0.5 * error
    assert not any(one.confirmed for one in found.shortlist)


def test_only_training_rows_and_bars_until_then_have_a_say() -> None:
    matrix, bars = market()
    rows = np.arange(1500)
    base = run(planted(0.25), rows=rows)
    other = planted(0.25)
    other.y["return"][1500:] = 5
    changed = replace(other, x=other.x.copy())
    changed.x[1500:] = 0
    assert run(changed, rows=rows) == base
    cut = {
        symbol: series[: int(np.searchsorted(series.timestamp, matrix.timestamp[1499])) + 1]
        for symbol, series in bars.items()
    }
    assert search(changed, cut, known(), "return", rows, config=CONFIG, embargo=2, seed=3) == base


def test_what_the_known_columns_say_already_is_no_discovery() -> None:
    matrix, _ = market()
    column = matrix.schema.names.index("return_5")
    y = matrix.x[:, column] / matrix.x[:, column].std() + 0.5 * np.random.default_rng(4).normal(size=len(matrix))
    found = run(replace(matrix, y=matrix.y | {"return": y}))
    assert not any(one.confirmed for one in found.shortlist)


def test_candidates_are_different_drawn_by_seed_and_counted() -> None:
    every = all_candidates()
    assert len(set(every)) == len(every)
    d, op = len(COLUMNS), 4
    pairs = d * (d - 1)
    # Symmetric operations count a pair of the same bar once; a column may meet its own past, not itself.
    assert len(every) == pairs // 2 * 3 + pairs + pairs * op + d * op
    some = draw(COLUMNS, CONFIG, seed=1)
    assert len(some) == CONFIG.trials and set(some) <= set(every)
    assert some == draw(COLUMNS, CONFIG, seed=1) != draw(COLUMNS, CONFIG, seed=2)
    assert not any("__lag" in name for name in draw(COLUMNS, CONFIG.model_copy(update={"lags": 0}), seed=1))
    assert draw(["odd__name"], CONFIG, seed=1) == []


def test_each_setting_changes_the_search() -> None:
    matrix = planted(0.1)
    base = run(matrix)
    assert run(matrix) == base
    assert run(matrix, CONFIG.model_copy(update={"trials": 0})) == Search(0, [])
    assert len(run(matrix, CONFIG.model_copy(update={"shortlist": 3})).shortlist) == 3
    assert run(matrix, CONFIG.model_copy(update={"validation": 0.2})) != base
    assert run(matrix, seed=4) != base
    least = min(one.p_value for one in base.shortlist)
    assert not any(one.confirmed for one in run(matrix, CONFIG.model_copy(update={"alpha": least * 0.99})).shortlist)
    assert any(one.confirmed for one in run(matrix, CONFIG.model_copy(update={"alpha": least * 1.01})).shortlist)


def test_rows_without_bars_are_refused() -> None:
    matrix, bars = market()
    with pytest.raises(DataError, match="AAPL: the training matrix has rows at times at which there is no bar"):
        search(
            matrix,
            bars | {"AAPL": bars["AAPL"][:-100]},
            known(),
            "return",
            np.arange(len(matrix)),
            config=CONFIG,
            embargo=2,
            seed=3,
        )
