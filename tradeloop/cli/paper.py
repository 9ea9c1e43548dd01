"""The command ``tradeloop paper``: trade on paper through the running service."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeloop.cli.output import Json, day_and_time, project, show_facts, show_json, show_table
from tradeloop.cli.serving import URL, URL_VARIABLE
from tradeloop.config import Params, parse_interval
from tradeloop.errors import ConfigError, StoreError
from tradeloop.layout import Layout

if TYPE_CHECKING:
    from tradeloop.paper.bot import Bot
    from tradeloop.paper.ledger import Ledger

_SHOWN = 15
_FOREVER = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


def paper(
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, help="Where the service listens.")] = URL,
    bars: Annotated[int, typer.Option(help="Replay clock: begin so many bars before the end.", min=1)] = 250,
    start: Annotated[str | None, typer.Option(help="Replay clock: begin here instead, ISO with UTC offset.")] = None,
    end: Annotated[str | None, typer.Option(help="Replay clock: the last bar, ISO with UTC offset.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Put the present account aside and begin a new one.")] = False,
    as_json: Json = False,
) -> None:
    """Trade on paper: ask the service at each bar, fill orders at the next open, report the fills.

    On the replay clock it walks through history and ends; on the live clock it waits for bars until interrupted.
    Interrupted or killed, it goes on where it was when started again.
    """
    layout, params = project()
    with _opened(layout, params, url, new=new) as (bot, ledger):
        try:
            if params.active.clock == "replay":
                _replay(bot, bars, _moment("--start", start), _moment("--end", end))
            else:
                _follow(bot, params)
        except KeyboardInterrupt:
            print("interrupted; start again to go on", file=sys.stderr)
        _show(bot, ledger, as_json=as_json)


def ledger_path(layout: Layout, params: Params) -> Path:
    """Return where the account of a market lies."""
    return layout.live / "paper" / f"{params.market}.db"


def _replay(bot: Bot, bars: int, start: datetime | None, end: datetime | None) -> None:
    from tqdm import tqdm

    bot.report()
    times = bot.due(start, end)
    if start is None and bot.state.cursor is None:
        times = times[-bars:]
    with tqdm(total=len(times), unit="bar", file=sys.stderr) as line:
        for bar in _worked(bot, times):
            line.update()
            line.set_postfix_str(f"{bar.closed_at:%Y-%m-%d} equity {bar.equity:,.0f}")


def _worked(bot: Bot, times: list[datetime]) -> Iterator[Any]:
    done: list[Any] = []
    for at in times:
        bot.run([at], done.append)
        if not done:
            return
        yield done.pop()


def _follow(bot: Bot, params: Params) -> None:
    """Wait for bars; a service that is away is waited for, too."""
    while not bot.finished:
        try:
            bot.report()
            bot.run(bot.due(), lambda bar: print(f"{bar.closed_at} equity {bar.equity:,.2f}", file=sys.stderr))
        except StoreError as error:
            print(f"tradeloop: {error}; going on", file=sys.stderr)
        time.sleep(params.paper.poll)


@contextmanager
def _opened(layout: Layout, params: Params, url: str, *, new: bool) -> Iterator[tuple[Bot, Ledger]]:
    import httpx

    from tradeloop.clock import LiveClock, ReplayClock
    from tradeloop.monitoring.feed import SourceFeed
    from tradeloop.paper.bot import Bot
    from tradeloop.paper.endpoint import Endpoint
    from tradeloop.paper.exchange import Account
    from tradeloop.paper.ledger import Ledger, retire

    path, rules = ledger_path(layout, params), params.paper
    replay = params.active.clock == "replay"
    if new and (aside := retire(path)):
        print(f"the account so far is now {aside}", file=sys.stderr)
    feed = SourceFeed(layout, params, ReplayClock(lambda: _FOREVER) if replay else LiveClock())
    with Ledger(path) as ledger, httpx.Client(base_url=url.rstrip("/")) as client:
        token = os.environ.get("TRADELOOP_TOKEN")
        endpoint = Endpoint(client, patience=rules.patience, token=token)
        settings = rules.model_dump(exclude={"poll", "patience"}) | {"seed": params.seed}
        state = ledger.begin(Account.open(rules.cash), settings)
        interval = parse_interval(params.active.interval)
        bot = Bot(feed, endpoint, ledger, state, rules=rules, seed=params.seed, interval=interval, replay=replay)
        yield bot, ledger


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} must be an ISO time (2013-02-28T21:00:00Z), got {text!r}") from None
    if moment.tzinfo is None:
        raise ConfigError(f"{option} must carry its UTC offset (2013-02-28T21:00:00Z), got {text!r}")
    return moment


def _show(bot: Bot, ledger: Ledger, *, as_json: bool) -> None:
    from tradeloop.paper.summary import summary, trades

    fills = ledger.fills()
    made = trades(fills)
    found = summary(bot.state, fills, ledger.bars(), ledger.statuses())
    if as_json:
        show_json({**found, "all_trades": [vars(trade) for trade in made]})
        return
    rows = [
        (
            trade.symbol,
            trade.side,
            day_and_time(trade.opened_at),
            day_and_time(trade.closed_at),
            f"{trade.quantity:.2f}",
            f"{trade.entry:.4f}",
            None if trade.exit is None else f"{trade.exit:.4f}",
            f"{trade.net_pnl:+.2f}",
        )
        for trade in made[-_SHOWN:]
    ]
    columns = ("symbol", "side", "opened (UTC)", "closed (UTC)", "quantity", "entry", "exit", "net profit")
    show_table(columns, rows, title=f"the last {len(rows)} of {len(made)} trades")
    show_facts((name, _readable(name, value)) for name, value in found.items())


def _readable(name: str, value: Any) -> Any:
    if name in ("net_return", "gross_return", "max_drawdown", "win_rate") and value is not None:
        return f"{value:.2%}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {one:g}" for key, one in value.items()) or None
    return value
