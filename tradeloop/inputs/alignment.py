"""Rows of data beyond bars → one value a bar: what was known at its close, and nothing else.

1. Order the rows by when they were known; of a state, leave out what was published after something newer.
2. A state is the newest known row's value; a flow is the sum over the rows that became known in (previous close,
   close], each bar's sum made from its own rows alone, so that it is the same whatever lies before or after.
3. Nothing is known before the first row, in a flow's bar that began before it, nor after `max_age` without a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Floats, Times, to_times
from tradeloop.config.inputs import InputKind
from tradeloop.inputs.contract import KINDS

HOUR = np.timedelta64(1, "h")
FURTHEST = 720.0
"""Hours (30 days) beyond which a scheduled event is not looked for; what bars get where none is known."""


def align(
    name: InputKind, rows: pd.DataFrame, times: Times, *, since: np.datetime64 | None, max_age: timedelta | None
) -> dict[str, Floats]:
    """Return the kind's outputs at each close, ``kind.output`` → float64 of the length of `times`; NaN: not known.

    Parameters
    ----------
    rows
        A canonical frame of the kind: see `tradeloop.inputs.files.canonical`.
    times
        Bar closes, UTC, increasing.
    since
        The close before the first of `times`, from where that bar's flows count; None: they are not known.
    max_age
        After so long without a row nothing is known; None: silence means that nothing happened.
    """
    known = to_times(rows["known_at"])
    begins = np.concatenate([[np.datetime64("NaT", "us") if since is None else since], times[:-1]])
    newest = np.searchsorted(known, times, side="right") - 1
    alive = newest >= 0
    if max_age is not None and len(known):
        alive &= times - known[newest] <= np.timedelta64(max_age)
    covered = alive & (begins >= known[0]) if len(known) else alive  # a comparison with NaT is False
    outputs = KINDS[name].outputs
    values = _SPECIAL[name](rows, times) if name in _SPECIAL else {}
    flows = [output for output, described in outputs.items() if described.flow]
    states = [output for output in outputs if output not in values and output not in flows]
    if flows:
        made = _FLOWS[name](rows) if name in _FLOWS else {flow: rows[flow].to_numpy(np.float64) for flow in flows}
        edges = np.searchsorted(known, np.concatenate([begins[:1], times]), side="right")
        edges[0] = min(edges[0], edges[-1])  # NaT sorts last
        values |= {flow: np.where(covered, _sums(made[flow], edges), np.nan) for flow in flows}
    if states:
        values |= _states(rows, times, states)
    return {f"{name}.{output}": np.where(alive, values[output], np.nan) for output in outputs}


def _sums(values: Floats, edges: NDArray[np.intp]) -> Floats:
    """Return the sum of ``values[edges[i] : edges[i + 1]]`` for each i."""
    # `reduceat` wants an element at each edge, which may lie behind the last row: hence the zero. What follows the last
    # edge is the sum that is left out.
    sums = np.asarray(np.add.reduceat(np.append(values, 0.0), edges)[:-1])
    return np.where(edges[:-1] == edges[1:], 0.0, sums)


def _in_order(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows were, when they became known, the newest there were."""
    at = to_times(rows["timestamp"])
    return np.asarray(at == np.maximum.accumulate(at)) if len(at) else np.zeros(0, dtype=bool)


def _states(rows: pd.DataFrame, times: Times, names: list[str]) -> dict[str, Floats]:
    rows = rows[_in_order(rows)]
    at = np.searchsorted(to_times(rows["known_at"]), times, side="right") - 1
    return {name: np.where(at >= 0, np.append(rows[name].to_numpy(np.float64), np.nan)[at], np.nan) for name in names}


def order_flow(rows: pd.DataFrame) -> Floats:
    """Return each quote's order flow e_n: what was added to the bid less what was added to the ask; 0 for the first.

    Cont, Kukanov, Stoikov (2014), The price impact of order book events, equation 1.
    """
    bid, ask = rows["bid_price"].to_numpy(np.float64), rows["ask_price"].to_numpy(np.float64)
    bids, asks = rows["bid_size"].to_numpy(np.float64), rows["ask_size"].to_numpy(np.float64)
    flow = np.zeros(len(rows))
    up, down = np.diff(bid) >= 0, np.diff(bid) <= 0
    higher, lower = np.diff(ask) >= 0, np.diff(ask) <= 0
    flow[1:] = up * bids[1:] - down * bids[:-1] - lower * asks[1:] + higher * asks[:-1]
    return flow


def _book_flows(rows: pd.DataFrame) -> dict[str, Floats]:
    # A late row changes nothing that is not known already: it neither moves the quotes nor counts.
    ordered = _in_order(rows)
    flow = np.zeros(len(rows))
    flow[ordered] = order_flow(rows[ordered])
    return {"order_flow": flow, "updates": ordered.astype(np.float64)}


def _trade_flows(rows: pd.DataFrame) -> dict[str, Floats]:
    size, side = rows["size"].to_numpy(np.float64), trade_side(rows)
    return {"buy_volume": size * (1 + side) / 2, "sell_volume": size * (1 - side) / 2, "count": np.ones(len(rows))}


def trade_side(rows: pd.DataFrame) -> Floats:
    """Return each trade's side; where it is not known, by the tick test: that of the last change of the price, else 0.

    Lee, Ready (1991), Inferring trade direction from intraday data. A volume of side 0 counts half on either side.
    """
    side, price = rows["side"].to_numpy(np.float64), rows["price"].to_numpy(np.float64)
    tick = np.sign(np.diff(price, prepend=price[:1]))
    moved = np.maximum.accumulate(np.where(tick != 0, np.arange(len(tick)), 0)) if len(tick) else tick.astype(int)
    return np.where(side != 0, side, tick[moved])


def _funding(rows: pd.DataFrame, times: Times) -> dict[str, Floats]:
    rows = rows[_in_order(rows)]
    due = np.append(to_times(rows["timestamp"]), np.datetime64("NaT", "us"))
    hours = np.append(rows["hours"].to_numpy(np.float64), np.nan)
    at = np.searchsorted(to_times(rows["known_at"]), times, side="right") - 1
    return {"hours_to_next": np.where(at >= 0, np.mod((due[at] - times) / HOUR, hours[at]), np.nan)}


def _events(rows: pd.DataFrame, times: Times) -> dict[str, Floats]:
    """Return hours until the next and since the last event of the calendar as it stood at each close."""
    at, known = to_times(rows["timestamp"]), to_times(rows["known_at"])
    importance = rows["importance"].to_numpy(np.float64)
    until, since = np.full(len(times), FURTHEST), np.full(len(times), FURTHEST)
    weight = np.zeros(len(times))
    first = np.searchsorted(times, known)
    last = np.searchsorted(times, _superseded(rows["id"].to_numpy(np.float64), known))
    due = np.searchsorted(times, at)  # bars before this close before the event
    near = np.searchsorted(times, at - np.timedelta64(int(FURTHEST), "h"))
    gone = np.searchsorted(times, at + np.timedelta64(int(FURTHEST), "h"))
    # The more important first: of two events at one time its importance stays.
    for i in np.argsort(-importance, kind="stable"):
        if importance[i] == 0:
            continue
        ahead = slice(max(first[i], near[i]), min(last[i], due[i]))
        gap = (at[i] - times[ahead]) / HOUR
        nearer = gap < until[ahead]
        weight[ahead][nearer] = importance[i]
        until[ahead][nearer] = gap[nearer]
        behind = slice(max(first[i], due[i]), min(last[i], gone[i]))
        since[behind] = np.minimum(since[behind], (times[behind] - at[i]) / HOUR)
    return {"hours_until": until, "hours_since": since, "importance_next": weight}


def _superseded(ids: Floats, known: Times) -> Times:
    """Return from when each row no longer stands: when the next one of its id became known."""
    until = np.full(len(ids), np.datetime64("9999-12-31", "us"))
    order = np.lexsort((np.arange(len(ids)), ids))
    same = ids[order][:-1] == ids[order][1:]
    until[order[:-1][same]] = known[order[1:][same]]
    return until


_FLOWS: Mapping[InputKind, Callable[[pd.DataFrame], dict[str, Floats]]] = {"book": _book_flows, "trades": _trade_flows}
_SPECIAL: Mapping[InputKind, Callable[[pd.DataFrame, Times], dict[str, Floats]]] = {
    "events": _events,
    "funding": _funding,
}
