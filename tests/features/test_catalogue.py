"""The list of features for people."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from tradeloop.bars import Bars
from tradeloop.config import Params
from tradeloop.features import describe, feature, listed, registered, registry
from tradeloop.features.catalogue import Definition, definitions, entry, sources


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_definitions", [])
    yield


def test_columns_of_one_definition_are_one_row(scratch: None) -> None:
    @feature(lookback=lambda window, bars: window * bars, windows=(2, 5), per_context=True, per_timeframe=("1h", "1d"))
    def push(bars: Bars, series: str, window: int, timeframe: object) -> np.ndarray:
        """Push of `series` over n = `window` bars of `timeframe`, n = `window`. Doe, Roe (1999)."""
        return bars.close

    @feature(lookback=3, columns=("up", "down"), needs=("book.bid", "book.ask"))
    def sides(bars: Bars) -> tuple[np.ndarray, np.ndarray]:
        """Bars |up| and down."""
        return bars.close, bars.close

    specs = registered(context=["BRK.B", "WTI"])
    family = "test_catalogue"
    assert definitions(specs) == [
        Definition(
            family,
            ("series_push_n_timeframe",),
            "series = BRK.B, WTI; timeframe = 1h, 1d; n = 2, 5",
            "120, 300, 2880, 7200",
            "Push of series over n bars of timeframe. Doe, Roe (1999).",
            "while its bars hold one at which the close of series is not known",
            8,
        ),
        Definition(
            family,
            ("up", "down"),
            "",
            "3",
            "Bars |up| and down.",
            "while its bars hold one at which book.bid or book.ask is not known",
            2,
        ),
    ]
    page = describe(specs).splitlines()
    assert page[0] == "## test_catalogue: 10 columns"
    assert page[-1].startswith(r"| `up`, `down` | 3 | Bars \|up\| and down. NaN while its bars hold one at which")
    assert entry(specs[0]) == {
        "name": "brk_b_push_2_1h",
        "family": family,
        "lookback": 120,
        "definition": "Push of BRK.B over n = 2 bars of 1h, n = 2. Doe, Roe (1999).",
        "source": "Doe, Roe 1999",
        "warm_up": 119,
        "nan": "in its first 119 bars; while its bars hold one at which the close of BRK.B is not known",
        "scale_free": True,
    }


def test_a_feature_of_the_bar_alone_is_never_nan() -> None:
    (spec,) = (spec for spec in registered(["price_action"]) if spec.name == "close_location")
    assert (entry(spec)["warm_up"], entry(spec)["nan"]) == (0, "never")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ln(C / C_1) over 1990 bars.", ""),
        ("Kaufman's (1995) efficiency.", "Kaufman 1995"),
        ("Exponential mean (λ = 0.94, RiskMetrics 1996) of it.", "RiskMetrics 1996"),
        ("Log Yang–Zhang (2000) volatility. Lo, MacKinlay (1988).", "Yang–Zhang 2000; Lo, MacKinlay 1988"),
        ("VPIN. Easley, López de Prado, O'Hara (2012). As Kyle (1985), Kyle (1985).",
         "Easley, López de Prado, O'Hara 2012; Kyle 1985"),
    ],
)  # fmt: skip
def test_sources(text: str, expected: str) -> None:
    assert sources(text) == expected


def test_the_page_has_every_column_once(daily_params: Params) -> None:
    for specs in (listed(), listed(daily_params)):
        found = definitions(specs)
        assert sum(one.count for one in found) == len(specs)
        rows = [line for line in describe(specs).splitlines() if line.startswith("| `")]
        assert len(rows) == len(found) < len(specs)
        for row, one in zip(rows, found, strict=True):
            assert row.replace(r"\|", "").count("|") == 5 and not re.search("`(window|series|timeframe)`", row), row
            assert one.columns[0] in row and one.text
        heads = re.findall(r"^## (\w+): (\d+) columns?$", describe(specs), flags=re.MULTILINE)
        assert {family: int(count) for family, count in heads} == {
            family: sum(spec.family == family for spec in specs) for family in {spec.family for spec in specs}
        }
