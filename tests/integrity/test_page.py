"""The page for a person: it opens without a network, and shows what was found where it was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.raw_bars import PARAMS, series
from tradeloop.config import Check, Market
from tradeloop.integrity import Examined, examine
from tradeloop.integrity.page import SHOWN, SYMBOLS, heat_map, render, score_strips
from tradeloop.sources import open_source

MARKET = Market(source="synthetic", symbols=["X"], calendar="24/7", interval="1h")
EMPTY = {"meta", "br", "hr", "img", "input", "link"}


class Structure(HTMLParser):
    """Collects what a page loads, and the text of its titles; refuses tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.loads += [tag] * (tag in ("script", "link", "iframe"))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title":
            self.titles.append(data)


def examined(frames: Mapping[str, pd.DataFrame]) -> Examined:
    return examine(frames, MARKET, Check(min_score=80))


def parsed(page: bytes) -> Structure:
    structure = Structure()
    structure.feed(page.decode())
    assert structure.open == []
    return structure


@pytest.fixture(scope="module")
def bitcoin() -> Examined:
    market = PARAMS.markets["btc_15m"]
    frame = open_source(market, root=ROOT, seed=0).read("BTCUSD")
    return examine({"BTCUSD": frame}, market, PARAMS.check)


def test_the_page_of_bitcoin_shows_what_was_found(bitcoin: Examined) -> None:
    page = render(bitcoin, "btc_15m")
    structure = parsed(page)
    assert structure.loads == [] and b"http" not in page and b"url(" not in page
    assert len(page) < 60_000 and page == render(bitcoin, "btc_15m")
    assert "BTCUSD 2021-11-28: 96 of 96 bars missing" in structure.titles
    assert "2021-11-28: 0.0" in structure.titles and "2021-10-27: 76.8" in structure.titles
    text = page.decode()
    for rule, count in {"duplicate": 32, "restated": 11, "gap": 244, "zero_volume": 2084}.items():
        assert f"BTCUSD: {rule}, {count} bars" in text
    assert "4 of 94 days are held back" in text and "bars missing to 2021-11-29T13:45:00Z: 223" in text
    assert text.count("no volume</td>") == SHOWN and f"The first {SHOWN} of 2084" in text


def test_the_map_has_a_cell_for_each_day_that_shades_by_what_is_missing(bitcoin: Examined) -> None:
    found = heat_map(bitcoin.days_of)
    assert (found["unit"], len(found["cells"]), found["left_out"]) == ("day", 94, 0)
    shade = {cell["title"].split(":")[0].split()[1]: cell["shade"] for cell in found["cells"]}
    assert shade["2021-11-28"] == "rgb(179,68,30)" and shade["2021-11-26"] == "#dcefe9"
    assert len({shade[day] for day in ("2021-11-27", "2021-11-28", "2021-11-29", "2021-12-01")}) == 4
    assert [label for _, label in found["labels"]] == ["2021-10", "2021-11", "2021-12"]
    assert all(cell["x"] >= 0 and cell["x"] + found["cell"] <= 900 for cell in found["cells"])


def test_longer_series_have_a_column_a_month() -> None:
    frame = series(24 * 200)
    found = heat_map(examined({"A": frame, "B": frame.drop(index=range(24 * 35, 24 * 40))}).days_of)
    assert (found["unit"], len(found["cells"])) == ("month", 14)  # January to July
    titles = [cell["title"] for cell in found["cells"] if cell["shade"] != "#dcefe9"]
    assert titles == ["B 2024-02: 120 of 696 bars missing"]
    assert [name for name, _ in found["names"]] == ["A", "B"]


def test_a_line_hangs_for_each_day_that_lost_points(bitcoin: Examined) -> None:
    (strip,) = score_strips(bitcoin.days_of, 80)
    lost = bitcoin.days[bitcoin.days["score"] < 100]
    assert len(strip["lines"]) == len(lost) and strip["days"] == 94 and strip["quarantined"] == 4
    assert sum(line["bad"] for line in strip["lines"]) == 4 and strip["threshold"] == 20
    assert max(line["lost"] for line in strip["lines"]) == 100


def test_a_good_market_has_a_page_without_findings() -> None:
    page = render(examined({"X": series()}), "good").decode()
    parsed(page.encode())
    assert "nothing found" in page and "<p>None.</p>" in page and "held back</th>" not in page


def test_of_many_symbols_the_worst_are_drawn() -> None:
    good, bad = series(48), series(48).drop(index=[20, 21])
    frames = {f"S{n}": bad if n == 7 else good for n in range(SYMBOLS + 5)}
    found = heat_map(examine(frames, MARKET, Check()).days_of)
    assert len(found["names"]) == SYMBOLS and "S7" in dict(found["names"]) and found["left_out"] == 5


def test_names_are_escaped() -> None:
    page = render(examined({"X": series()}), "<b>&").decode()
    assert "<b>&" not in page and re.search(r"<h1>&lt;b&gt;&amp;:", page)
