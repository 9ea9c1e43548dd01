from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.config import Paper
from tradeloop.paper.exchange import Account, Fill, Quote, Target, close_bar, from_json, settle, to_json

START = datetime(2020, 1, 1, tzinfo=UTC)
RULES = Paper(cash=10_000.0)
SYMBOLS = ("AAA", "BBB", "CCC")


def quote(step: int, price: float, close: float | None = None, volume: float = 1e9) -> Quote:
    at = START + timedelta(hours=step)
    return Quote(at, at + timedelta(hours=1), price, price if close is None else close, volume)


def want(side: int, name: str = "p") -> Target:
    return Target(side, name)


def go(
    account: Account, targets: dict[str, Target], quotes: dict[str, Quote], rules: Paper = RULES
) -> tuple[Account, list[Fill]]:
    return settle(account, targets, quotes, rules=rules, run="run", seed=1)


def free(**changes: float | bool) -> Paper:
    """Return rules without costs."""
    return RULES.model_copy(update={"fee_bps": 0.0, "slippage_bps": 0.0, **changes})


def test_a_round_trip_by_hand() -> None:
    rules = free(fee_bps=10.0)
    account, (opened,) = go(Account.open(10_000.0), {"AAA": want(1, "first")}, {"AAA": quote(0, 100.0)}, rules)
    value = 0.25 * 10_000 / (1 + 0.25 * 0.001)
    assert (opened.side, opened.price, opened.expected_price, opened.pnl) == ("buy", 100.0, 100.0, None)
    assert opened.quantity == pytest.approx(value / 100)
    assert opened.fee == pytest.approx(value * 0.001)
    assert opened.filled_at == START
    account = close_bar(account, {"AAA": quote(0, 100.0, 110.0)}, rules=rules)
    assert account.equity == pytest.approx(10_000 + 0.1 * value - value * 0.001)
    account, (closed,) = go(account, {"AAA": want(0, "second")}, {"AAA": quote(1, 120.0)}, rules)
    assert (closed.side, closed.quantity, closed.prediction_id) == ("sell", opened.quantity, "first")
    assert closed.pnl == pytest.approx(0.2 * value)
    assert account.positions == {}
    assert account.cash == pytest.approx(10_000 + 0.2 * value - value * 0.001 * 2.2)


def test_a_short_gains_as_the_price_falls() -> None:
    account, _ = go(Account.open(10_000.0), {"AAA": want(-1)}, {"AAA": quote(0, 100.0)}, free())
    account, (closed,) = go(account, {"AAA": want(0)}, {"AAA": quote(1, 90.0)}, free())
    assert closed.side == "buy"
    assert closed.pnl == pytest.approx(250.0)
    assert account.cash == pytest.approx(10_250.0)


def test_a_position_with_the_wanted_side_is_left_alone_and_a_turn_closes_before_it_opens() -> None:
    account, _ = go(Account.open(10_000.0), {"AAA": want(1, "a")}, {"AAA": quote(0, 100.0)})
    same, fills = go(account, {"AAA": want(1, "b")}, {"AAA": quote(1, 101.0)})
    assert fills == []
    assert same.positions == account.positions
    turned, fills = go(account, {"AAA": want(-1, "c")}, {"AAA": quote(1, 101.0)})
    assert [(fill.side, fill.prediction_id) for fill in fills] == [("sell", "a"), ("sell", "c")]
    assert turned.positions["AAA"].quantity < 0
    assert turned.positions["AAA"].prediction_id == "c"
    assert len({fill.fill_id for fill in fills}) == 2


def test_shorts_may_be_forbidden() -> None:
    rules = RULES.model_copy(update={"allow_short": False})
    account, fills = go(Account.open(10_000.0), {"AAA": want(-1)}, {"AAA": quote(0, 100.0)}, rules)
    assert (account.positions, fills) == ({}, [])
    account, _ = go(account, {"AAA": want(1)}, {"AAA": quote(1, 100.0)}, rules)
    account, fills = go(account, {"AAA": want(-1)}, {"AAA": quote(2, 100.0)}, rules)
    assert [fill.side for fill in fills] == ["sell"]
    assert account.positions == {}


def test_an_order_gets_no_more_than_its_share_of_the_bar() -> None:
    thin = quote(0, 100.0, volume=100.0)
    account, (opened,) = go(Account.open(10_000.0), {"AAA": want(1)}, {"AAA": thin}, free(participation=0.05))
    assert opened.quantity == 5.0
    half = quote(1, 100.0, volume=40.0)
    account, (part,) = go(account, {"AAA": want(0)}, {"AAA": half}, free(participation=0.05))
    assert (part.quantity, account.positions["AAA"].quantity) == (2.0, 3.0)
    account, (rest,) = go(account, {"AAA": want(0)}, {"AAA": quote(2, 100.0)}, free(participation=0.05))
    assert (rest.quantity, account.positions) == (3.0, {})
    _, fills = go(account, {"AAA": want(1)}, {"AAA": quote(3, 100.0, volume=0.0)})
    assert fills == []


def test_slippage_is_against_the_order_has_the_mean_that_is_asked_for_and_follows_the_seed() -> None:
    rules = free(slippage_bps=4.0)
    paid = []
    for step in range(2000):
        _, (fill,) = go(
            Account.open(10_000.0), {"AAA": want(1 if step % 2 else -1)}, {"AAA": quote(step, 100.0)}, rules
        )
        paid.append((fill.price / 100.0 - 1.0) * 1e4 * (1 if fill.side == "buy" else -1))
    assert min(paid) > 0
    assert sum(paid) / len(paid) == pytest.approx(4.0, abs=0.3)
    assert max(paid) <= 40.0 + 1e-6
    one = go(Account.open(10_000.0), {"AAA": want(1)}, {"AAA": quote(0, 100.0)}, rules)
    assert one == go(Account.open(10_000.0), {"AAA": want(1)}, {"AAA": quote(0, 100.0)}, rules)
    other = settle(Account.open(10_000.0), {"AAA": want(1)}, {"AAA": quote(0, 100.0)}, rules=rules, run="run", seed=2)
    assert other != one


def test_a_drawdown_stops_the_account_which_then_only_closes() -> None:
    rules = free(max_position=1.0, stop_drawdown=0.2)
    account, _ = go(Account.open(10_000.0), {"AAA": want(1)}, {"AAA": quote(0, 100.0)}, rules)
    fine = close_bar(account, {"AAA": quote(0, 100.0, 80.1)}, rules=rules)
    assert not fine.stopped
    account = close_bar(account, {"AAA": quote(0, 100.0, 80.0)}, rules=rules)
    assert account.stopped
    account, fills = go(
        account, {"AAA": want(-1), "BBB": want(1)}, {"AAA": quote(1, 79.0), "BBB": quote(1, 5.0)}, rules
    )
    assert [(fill.symbol, fill.side) for fill in fills] == [("AAA", "sell")]
    assert account.positions == {}
    assert close_bar(account, {"AAA": quote(1, 79.0, 200.0)}, rules=rules).stopped


def test_an_account_survives_json() -> None:
    account, _ = go(Account.open(10_000.0), {"AAA": want(1), "BBB": want(-1)}, {s: quote(0, 7.0) for s in SYMBOLS})
    assert from_json(json.loads(json.dumps(to_json(account)))) == account


steps = st.lists(
    st.tuples(
        st.tuples(*(st.sampled_from((-1, 0, 1, None)) for _ in SYMBOLS)),
        st.tuples(*(st.floats(-0.2, 0.25) for _ in SYMBOLS)),
        st.tuples(*(st.sampled_from((0.0, 3.0, 1e9)) for _ in SYMBOLS)),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(steps=steps, fee=st.floats(0, 50), slippage=st.floats(0, 50), cap=st.floats(0.05, 1.0))
def test_nothing_is_made_or_lost_and_no_limit_is_broken(
    steps: list[tuple[tuple[int | None, ...], tuple[float, ...], tuple[float, ...]]],
    fee: float,
    slippage: float,
    cap: float,
) -> None:
    rules = RULES.model_copy(
        update={"fee_bps": fee, "slippage_bps": slippage, "max_position": cap, "max_exposure": 0.9}
    )
    account, prices = Account.open(10_000.0), dict.fromkeys(SYMBOLS, 50.0)
    booked, fees, held = 0.0, 0.0, dict.fromkeys(SYMBOLS, 0.0)
    for number, (sides, moves, volumes) in enumerate(steps):
        opens = dict(prices)
        prices = {s: prices[s] * (1 + move) for s, move in zip(SYMBOLS, moves, strict=True)}
        quotes = {s: quote(number, opens[s], prices[s], v) for s, v in zip(SYMBOLS, volumes, strict=True)}
        targets = {s: want(side, f"{number}") for s, side in zip(SYMBOLS, sides, strict=True) if side is not None}
        stopped = account.stopped
        account, fills = go(account, targets, quotes, rules)
        paid = sum(fill.fee + fill.quantity * abs(fill.price - fill.expected_price) for fill in fills)
        for fill in fills:
            assert fill.quantity <= rules.participation * quotes[fill.symbol].volume * (1 + 1e-12)
            worse = (fill.price - fill.expected_price) * (1 if fill.side == "buy" else -1)
            assert worse >= 0
            booked += fill.pnl or 0.0
            fees += fill.fee
            held[fill.symbol] += fill.quantity if fill.side == "buy" else -fill.quantity
            if fill.pnl is None:
                assert not stopped
                assert fill.quantity * opens[fill.symbol] <= cap * (account.equity + paid) * (1 + 1e-9)
                assert account.exposure <= 0.9 * account.equity * (1 + 1e-9)
                assert account.cash >= 0
        unrealised = sum(p.quantity * (account.marks[s] - p.price) for s, p in account.positions.items())
        assert account.equity == pytest.approx(10_000.0 + booked - fees + unrealised, rel=1e-9)
        for symbol in SYMBOLS:
            quantity = account.positions[symbol].quantity if symbol in account.positions else 0.0
            assert quantity == pytest.approx(held[symbol], abs=1e-6)
        account = close_bar(account, quotes, rules=rules)
        assert account.peak >= account.equity
