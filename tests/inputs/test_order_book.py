from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.inputs.conftest import at, rows, sample_orders, sample_quotes, sample_trades
from tradeloop.bars import from_times, to_times, validate_bars
from tradeloop.errors import DataError
from tradeloop.inputs.alignment import align
from tradeloop.inputs.order_book import quote_bars, replay_orders


def orders(*events: tuple[str, int, float, float, str, str]) -> pd.DataFrame:
    """Return order events: time, id, price, volume, action, direction; known a second later."""
    clock, *columns = zip(*events, strict=True)
    times = at(*clock)
    frame = pd.DataFrame(dict(zip(["id", "price", "volume", "action", "direction"], columns, strict=True)))
    return frame.assign(timestamp=from_times(times), known_at=from_times(times + np.timedelta64(1, "s")))


BEGIN = [
    ("10:00", 1, 99.0, 2.0, "created", "bid"),
    ("10:00", 2, 98.0, 5.0, "created", "bid"),
    ("10:00", 3, 101.0, 1.5, "created", "ask"),
    ("10:00", 4, 103.0, 4.0, "created", "ask"),
]


def quotes(*events: tuple[str, int, float, float, str, str], levels: int = 2) -> list[list[float]]:
    return replay_orders(orders(*BEGIN, *events), levels=levels).iloc[:, 2:].to_numpy().tolist()


def test_a_book_is_built_from_its_orders() -> None:
    frame = replay_orders(orders(*BEGIN), levels=2)
    assert list(frame.columns[2:]) == ["bid_price", "bid_size", "ask_price", "ask_size", "bid_depth", "ask_depth"]
    assert frame.iloc[0, 2:].tolist() == [99, 2, 101, 1.5, 7, 5.5]
    assert to_times(frame["timestamp"]).tolist() == at("10:00").tolist()
    assert to_times(frame["known_at"]).tolist() == at("10:00:01").tolist()
    assert replay_orders(orders(*BEGIN), levels=1).iloc[0, 6:].tolist() == [2, 1.5]


def test_orders_come_change_and_go() -> None:
    found = quotes(
        ("10:01", 5, 99.0, 1.0, "created", "bid"),  # joins the best bid
        ("10:02", 1, 99.0, 0.5, "changed", "bid"),  # is filled in part
        ("10:03", 1, 99.0, 0.5, "deleted", "bid"),  # leaves the other there
        ("10:04", 5, 99.0, 1.0, "deleted", "bid"),  # the level is gone
        ("10:05", 3, 100.0, 1.5, "changed", "ask"),  # moves to a better price
        ("10:06", 9, 97.0, 1.0, "created", "bid"),  # beyond the two best levels there are: depth changes
        ("10:07", 8, 96.0, 1.0, "created", "bid"),  # beyond what counts: no other quote
    )
    assert found[1:] == [
        [99, 3, 101, 1.5, 8, 5.5],
        [99, 1.5, 101, 1.5, 6.5, 5.5],
        [99, 1, 101, 1.5, 6, 5.5],
        [98, 5, 101, 1.5, 5, 5.5],
        [98, 5, 100, 1.5, 5, 5.5],
        [98, 5, 100, 1.5, 6, 5.5],
    ]


def test_what_happens_at_one_moment_is_one_quote() -> None:
    """An order that crosses is matched within the moment: the book that is crossed meanwhile is nobody's."""
    found = quotes(
        ("10:01", 6, 101.0, 2.0, "created", "bid"),
        ("10:01", 3, 101.0, 0.0, "deleted", "ask"),
        ("10:01", 6, 101.0, 0.5, "changed", "bid"),
    )
    assert found[1:] == [[101, 0.5, 103, 4, 2.5, 4]]


def test_where_the_book_stays_crossed_the_older_order_has_gone() -> None:
    found = quotes(("10:01", 6, 102.0, 2.0, "created", "bid"))
    assert found[1:] == [[102, 2, 103, 4, 4, 4]]
    found = quotes(("10:01", 6, 98.5, 2.0, "created", "ask"))
    assert found[1:] == [[98, 5, 98.5, 2, 5, 3.5]]


def test_no_quote_without_both_sides_and_unknown_orders_are_passed_over() -> None:
    gone = [("10:01", 3, 101.0, 0.0, "deleted", "ask"), ("10:01", 4, 103.0, 0.0, "deleted", "ask")]
    assert len(quotes(*gone)) == 1
    assert len(quotes(("10:01", 77, 99.0, 1.0, "deleted", "bid"), ("10:02", 78, 99.0, 9.0, "changed", "bid"))) == 1


def test_nothing_is_left_over_of_sizes() -> None:
    found = quotes(
        ("10:01", 5, 100.0, 0.1, "created", "bid"),
        ("10:02", 6, 100.0, 0.2, "created", "bid"),
        ("10:03", 5, 100.0, 0.1, "deleted", "bid"),
        ("10:04", 6, 100.0, 0.2, "deleted", "bid"),
    )
    assert [quote[:2] for quote in found] == [[99, 2], [100, 0.1], [100, 0.3], [100, 0.2], [99, 2]]


def test_a_quote_is_known_once_all_that_it_follows_from_is() -> None:
    events = orders(*BEGIN, ("10:01", 5, 99.5, 1.0, "created", "bid"), ("10:02", 6, 99.6, 1.0, "created", "bid"))
    events.loc[4, "known_at"] += pd.Timedelta("5min")  # this message was held up: so is what follows from it
    assert to_times(replay_orders(events)["known_at"]).tolist() == at("10:00:01", "10:06:01", "10:06:01").tolist()


def test_events_out_of_order_are_refused() -> None:
    with pytest.raises(DataError, match="in the exchange's order, event 4 goes back in time"):
        replay_orders(orders(*BEGIN, ("09:59", 5, 99.0, 1.0, "created", "bid")))


def test_bars_of_quotes_by_hand() -> None:
    times = at("10:00:20", "10:01:10", "10:01:30", "10:03:05", "10:04:30")
    book = rows("book", times, bid_price=[99, 100, 98, 97, 90], ask_price=[101, 102, 100, 99, 92])
    trades = rows("trades", at("10:00:10", "10:01:40", "10:02:30", "10:02:40"), size=[1, 2, 4, 8])
    bars = validate_bars(quote_bars(book, trades, timedelta(minutes=1)), name="made")
    assert to_times(bars["timestamp"]).tolist() == at("10:02", "10:03", "10:04").tolist()
    # mids 100, 101, 99, 98; the second bar has no quote of its own
    assert bars.iloc[:, 1:].to_numpy().tolist() == [[100, 101, 99, 99, 2], [99, 99, 99, 99, 12], [99, 99, 98, 98, 0]]


def test_the_sample_replays_to_a_market() -> None:
    """314,057 order events of BTC/USD: a valid quote after each moment, at a spread of a dollar most of the time."""
    frame = sample_quotes()
    assert len(sample_orders()) == 314_057 and len(frame) == 36_697
    spread = frame["ask_price"] - frame["bid_price"]
    assert spread.min() == 1 and spread.median() == 1 and spread.max() == 30
    assert frame["bid_price"].min() > 78_300 and frame["ask_price"].max() < 78_600


def test_the_sample_s_trades_took_place_at_the_replayed_quotes() -> None:
    """The trades come from another channel of the exchange: where they meet the replayed book, it is the exchange's."""
    trades, frame = sample_trades(), sample_quotes()
    before = np.searchsorted(to_times(frame["timestamp"]), to_times(trades["timestamp"])) - 1
    assert (before >= 0).all()
    quote, bought = frame.iloc[before].reset_index(drop=True), trades["side"] > 0
    assert ((trades["price"] >= quote["ask_price"])[bought]).mean() > 0.98
    assert ((trades["price"] <= quote["bid_price"])[~bought]).all()
    # A burst of trades begins at the best price; later ones of the same moment walk up the book.
    first = ~trades.duplicated("timestamp")
    best = np.where(bought, quote["ask_price"], quote["bid_price"])
    assert (trades["price"] == best)[first].mean() > 0.97


@pytest.mark.parametrize(("seconds", "least"), [(10, 0.65), (30, 0.75), (60, 0.75)])
def test_on_the_sample_order_flow_moves_the_price(seconds: int, least: float) -> None:
    """Measured: correlations of .70, .83 and .84; Cont, Kukanov, Stoikov report R² of about .65 on stocks at 10 s."""
    step = np.timedelta64(seconds, "s")
    bars = quote_bars(sample_quotes(), sample_trades(), timedelta(seconds=seconds))
    closes = to_times(bars["timestamp"])
    found = align("book", sample_quotes(), closes, since=closes[0] - step, max_age=None)
    move = (bars["close"] - bars["open"]).to_numpy()
    assert np.corrcoef(move, found["book.order_flow"])[0, 1] > least
