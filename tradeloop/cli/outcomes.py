"""What became of the predictions: outcomes as they were learned, and whether the accounts balance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tradeloop.cli.output import Json, day_and_time, opened, project, show_json, show_table


def outcomes(
    symbol: Annotated[str | None, typer.Option(help="Only this symbol's resolved ones, the newest bars first.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only those learned after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many entries.")] = 20,
    check: Annotated[
        bool, typer.Option("--check", help="Check instead that every prediction ended once, or waits.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List how predictions ended, the last learned first: what was forecast, and what came."""
    from tradeloop.monitoring.overview import outcomes as ask

    if check:
        _check(as_json=as_json)
        return
    layout, params = project()
    with opened(layout, params) as (database, _):
        found = ask(database, params.market, symbol=symbol, after_seq=after, limit=limit)
    if as_json:
        show_json(found)
        return
    columns = ("#", "symbol", "bar (UTC)", "model", "arm", "status", "p up", "up", "return", "came", "range", "came")
    title = f"outcomes on {params.market}; range as a fraction of the price"
    show_table(columns, [_row(one) for one in found["outcomes"]], title=title)


def _row(one: Mapping[str, Any]) -> tuple[Any, ...]:
    ended = one["status"] if one["status"] == "resolved" else f"{one['status']}: {one['reason']}"
    marks = ", again" * bool(one["repeat"]) + f", restated {one['revision']} times" * bool(one["revision"])
    direction = {1.0: "yes", 0.0: "no"}.get(one["direction"])
    return (
        *(one["seq"], one["symbol"], day_and_time(one["feature_time"]), str(one["model"] or "–")[:12], one["arm"]),
        *(ended + marks, _number(one["p_up"], ".3f"), direction, _number(one["forecast_ret"], "+.4f")),
        *(_number(one["ret"], "+.4f"), _number(one["forecast_range"], ".4f"), _number(one["range"], ".4f")),
    )


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def _check(*, as_json: bool) -> None:
    from tradeloop.monitoring.accounts import check as ask
    from tradeloop.monitoring.accounts import count

    layout, params = project()
    with opened(layout, params) as (database, _):
        counts, problems = count(database, params.market), ask(database, params.market)
    if as_json:
        show_json({"market": params.market, "counts": vars(counts), "problems": problems})
    else:
        print(", ".join(f"{value} {name}" for name, value in vars(counts).items()))
        print("\n".join(problems) or "every prediction has ended once, or waits")
    if problems:
        raise typer.Exit(1)
