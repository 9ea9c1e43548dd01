"""The edge: one line that names the value and the rule."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import ROOT
from tradeloop.clock import VirtualClock
from tradeloop.config import load_params
from tradeloop.errors import DataError
from tradeloop.journal import Level
from tradeloop.stream.messages import Edge

BAR = {"symbol": "AAPL", "timestamp": "2013-03-01T21:00:00Z", "open": 10.0, "high": 11, "low": 9.5, "close": 10.5,
       "volume": 0}  # fmt: skip
TIME = 1_362_171_600_000_000


def edge(now: str = "2020-01-01", **changes: dict[str, Any]) -> Edge:
    params = load_params(ROOT / "params.yaml")
    update = {block: getattr(params, block).model_copy(update=values) for block, values in changes.items()}
    return Edge(params.model_copy(update=update), VirtualClock(datetime.fromisoformat(now).replace(tzinfo=UTC)))


def changed(**changes: Any) -> str:
    return json.dumps({name: value for name, value in (BAR | changes).items() if value is not ...})


@pytest.mark.parametrize(
    ("unit", "timestamp"),
    [("s", TIME // 10**6), ("s", TIME / 1e6), ("ms", TIME // 1000), ("us", TIME), ("s", "2013-03-01T16:00:00-05:00")],
)
def test_a_bar_is_read(unit: str, timestamp: Any) -> None:
    said = edge(stream={"epoch": unit}).read(changed(timestamp=timestamp, id="7", context={"SP500": 1518.2}))
    assert said.bar == ("AAPL", TIME, 10.0, 11.0, 9.5, 10.5, 0.0, None)
    assert said.levels == (Level("SP500", TIME, TIME, 1518.2),)


def test_a_context_value_is_read() -> None:
    level = {"series": "SP500", "timestamp": TIME / 1e6, "known_at": TIME / 1e6 + 60, "close": -1.5}
    assert edge().read(json.dumps(level)).levels == (Level("SP500", TIME, TIME + 60_000_000, -1.5),)
    del level["known_at"]
    assert edge().read(json.dumps(level)).levels == (Level("SP500", TIME, TIME, -1.5),)


RULES = [
    ("[1]", r"a message must be an object, got \[1\]"),
    ("{", r"a message must be JSON: .+"),
    (changed(symbol="TSLA"), r"symbol must be one of market us_daily, got 'TSLA'"),
    (changed(symbol=...), r"symbol must be one of market us_daily, got None"),
    (changed(turnover=1), r"unknown key 'turnover' \(known: .+\)"),
    (changed(timestamp="2013-03-01T20:59:00Z"), r"AAPL: timestamp must be a bar's close on calendar XNYS at 1 day, .+"),
    (changed(timestamp="2013-03-02T21:00:00Z"), r"AAPL: timestamp must be a bar's close on .+"),
    (changed(timestamp="2013-03-01T21:00:00"), r"timestamp must carry its UTC offset .+"),
    (changed(timestamp="yesterday"), r"timestamp must be an ISO time or a number since 1970, got 'yesterday'"),
    (changed(timestamp=True), r"timestamp must be an ISO time or a number since 1970, got True"),
    (changed(timestamp=TIME), r"timestamp must lie between 1900 and 2200, got 1362171600000000 \(stream.epoch\)"),
    (changed(timestamp="2020-01-02T21:00:00Z"), r"timestamp must not lie in the future, .+"),
    (changed(close=None), r"AAPL: close must be a finite number, got None"),
    (changed(close="10.5"), r"AAPL: close must be a finite number, got '10.5'"),
    (changed(open=True), r"AAPL: open must be a finite number, got True"),
    (changed(low=0), r"AAPL: low must be positive, got 0.0"),
    (changed(close=11.5), r"AAPL: prices must lie within low to high, got open=10.0, high=11.0, low=9.5, close=11.5"),
    (changed(open=9), r"AAPL: prices must lie within low to high, got .+"),
    (changed(volume=-1), r"AAPL: volume must not be negative, got -1.0"),
    (changed(context=[1]), r"context must be an object of series and values, got \[1\]"),
    (changed(context={"VIX": 1}), r"series must be one of \['NASDAQ', 'SP500', 'WTI'\], got 'VIX'"),
    ('{"series": "SP500", "timestamp": 1, "known_at": 0, "close": 1}', r"SP500: known_at must not be before .+"),
    ('{"series": "SP500", "timestamp": 1, "close": 1, "open": 1}', r"unknown key 'open' .+"),
]


@pytest.mark.parametrize(("text", "rule"), RULES, ids=[rule[:40] for _, rule in RULES])
def test_a_broken_rule_is_one_line(text: str, rule: str) -> None:
    with pytest.raises(DataError, match=f"^{rule}$") as raised:
        edge().read(text)
    assert "\n" not in str(raised.value)


def test_what_check_leaves_out_is_not_taken() -> None:
    with pytest.raises(DataError, match=r"AAPL: volume is 0, and check.drop leaves out bars without any"):
        edge(check={"drop": ["zero_volume"]}).read(changed())


def test_an_early_close_is_one() -> None:
    assert edge().read(changed(timestamp="2012-11-23T18:00:00Z")).bar is not None
    with pytest.raises(DataError, match="must be a bar's close"):
        edge().read(changed(timestamp="2012-11-23T21:00:00Z"))
