"""The draw between champion and challengers: sticky, disjoint, exact in its shares, the same in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tradeloop.errors import RegistryError
from tradeloop.routes import Mode, Route, draw, pick, require_room

START = datetime(2013, 1, 1, tzinfo=UTC)
SYMBOLS = [f"S{i}" for i in range(4000)]


def route(model: str, mode: Mode, share: float) -> Route:
    return Route(model, model, mode, share, START)


def picked(routes: list[Route], symbol: str, day: int = 0, market: str = "m") -> str | None:
    found = pick(routes, market, symbol, START + timedelta(days=day))
    return found.model if found else None


def test_the_draw_is_the_documented_hash() -> None:
    digest = hashlib.sha256(b"us_daily\nAAPL").digest()
    assert draw("us_daily", "AAPL") == pytest.approx(int.from_bytes(digest[:8], "big") / 2**64, abs=1e-15)
    moment = datetime(2013, 3, 1, 21, 0, 0, 5, tzinfo=UTC)
    micros = str(int(moment.timestamp()) * 1_000_000 + 5)
    chance = draw("us_daily", "AAPL", micros)
    at = [route("b", "ab", chance - 1e-9), route("c", "ab", 2e-9)]
    assert pick(at, "us_daily", "AAPL", moment) is at[1]


def test_every_process_draws_the_same() -> None:
    script = """
from datetime import UTC, datetime
from tradeloop.routes import Route, pick
now = datetime(2013, 1, 1, tzinfo=UTC)
routes = [Route("a", "a", "canary", 0.3, now), Route("b", "b", "ab", 0.3, now)]
print([getattr(pick(routes, "m", f"S{i}", now), "model", None) for i in range(300)])
"""
    runs = {
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    here = [picked([route("a", "canary", 0.3), route("b", "ab", 0.3)], f"S{i}") for i in range(300)]
    assert runs == {f"{here}\n"}


def test_a_canary_keeps_its_symbols_and_others_join_as_its_share_grows() -> None:
    small = {s for s in SYMBOLS if picked([route("a", "canary", 0.1)], s)}
    large = {s for s in SYMBOLS if picked([route("a", "canary", 0.3)], s, day=5)}
    assert small < large
    assert all(picked([route("a", "canary", 0.1)], s, day=d) == "a" for s in list(small)[:50] for d in range(20))


def test_an_ab_arm_is_drawn_anew_for_every_bar() -> None:
    arms = [route("b", "ab", 0.5)]
    per_symbol = [sum(picked(arms, s, day) == "b" for day in range(400)) for s in SYMBOLS[:20]]
    assert all(130 < count < 270 for count in per_symbol)  # 200 expected, a standard deviation is 10
    assert pick(arms, "m", "S0", None) is None


def test_shares_are_shares_of_all_questions_and_disjoint() -> None:
    routes = [route("w", "shadow", 0), route("a", "canary", 0.2), route("b", "ab", 0.3), route("c", "canary", 0.1)]
    routes += [route("d", "ab", 0.25)]
    drawn = Counter(picked(routes, s, day) for s in SYMBOLS for day in range(10))
    shares = {model: count / (10 * len(SYMBOLS)) for model, count in drawn.items()}
    expected = {"a": 0.2, "b": 0.3, "c": 0.1, "d": 0.25, None: 0.15}
    assert shares == pytest.approx(expected, abs=0.025)  # canaries: 4000 symbols, a standard deviation is 0.006


def test_all_may_go_to_challengers() -> None:
    assert {picked([route("a", "canary", 0.4), route("b", "ab", 0.6)], s) for s in SYMBOLS} == {"a", "b"}
    assert {picked([route("a", "canary", 1.0)], s) for s in SYMBOLS} == {"a"}


def test_markets_draw_differently() -> None:
    canary = [route("a", "canary", 0.5)]
    assert [picked(canary, s) for s in SYMBOLS] != [picked(canary, s, market="n") for s in SYMBOLS]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=3))
def test_a_draw_lies_in_its_range(parts: list[str]) -> None:
    assert 0 <= draw(*parts) < 1


@pytest.mark.parametrize(
    ("mode", "share", "rule"),
    [
        ("shadow", 0.1, "a shadow never answers"),
        ("canary", 0.0, "above 0 and at most 1, got 0$"),
        ("ab", 1.5, "above 0 and at most 1, got 1.5"),
        ("ab", -0.5, "above 0"),
        ("canary", float("nan"), "above 0"),
        ("canary", 0.5, "0.6 is taken, 0.5 was asked"),
        ("blue", 0.5, "one of shadow, canary, ab, got 'blue'"),
    ],
)
def test_a_share_must_have_room(mode: Mode, share: float, rule: str) -> None:
    taken = [route("a", "canary", 0.2), route("b", "ab", 0.4)]
    with pytest.raises(RegistryError, match=rule):
        require_room(taken, "c", mode, share)


def test_room_is_what_the_others_leave() -> None:
    taken = [route("a", "canary", 0.2), route("b", "ab", 0.4)]
    require_room(taken, "c", "ab", 0.4)
    require_room(taken, "b", "canary", 0.8)
    tenths = [route(str(i), "ab", 0.1) for i in range(9)]
    require_room(tenths, "c", "ab", 0.1)
