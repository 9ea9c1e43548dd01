"""What the direction forecasts would have earned on the holdout after costs, beside simpler ways to trade."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tradeloop import backtest
from tradeloop.bars import Floats
from tradeloop.config import Evaluate
from tradeloop.evaluate.holdout import Holdout
from tradeloop.evaluate.scores import baseline_forecasts, resampler
from tradeloop.metrics import METRICS
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.metrics.financial import drawdown_curve, equity_curve
from tradeloop.robustness import deflated_sharpe, monte_carlo

ANNUALISED = ("sharpe", "sortino")
OF_RETURNS = (*ANNUALISED, "total_return", "max_drawdown", "profit_factor", "hit_rate")

Json = dict[str, Any]


def trade(holdout: Holdout, config: Evaluate, p_up: Floats) -> backtest.Trades:
    """Return the trades that a probability of up (m,) asks for on the holdout."""
    return backtest.trade(
        holdout.bars,
        holdout.symbol,
        holdout.timestamp,
        position=backtest.positions(p_up, config.threshold),
        entry=holdout.labels.entry,
        horizon=holdout.labels.horizon,
        cost_bps=config.cost_bps,
    )


def judge_trading(holdout: Holdout, config: Evaluate, seed: int, *, searched: int = 0) -> tuple[Json, pd.DataFrame]:
    """Return the financial scores of the ensemble and of what stands beside it, and the equity curves.

    Parameters
    ----------
    searched
        How many columns were tried to find those of ``features.discovered``: each is one more trial.

    Returns
    -------
    dict
        ``metrics``: net of costs, with intervals. ``others``: values for members, baselines and buy-and-hold.
        ``minus_buy_and_hold``: the difference of Sharpe ratios, paired. ``break_even_bps``: the cost one way at which
        nothing is left. ``deflated_sharpe``: against the other forecasts tried here. ``monte_carlo``: other histories.
    DataFrame
        ``timestamp``, ``equity`` (net), ``gross``, ``buy_and_hold``, ``drawdown`` (of equity), ``low`` and ``high``
        (between them run 90% of resampled histories), all compounded from 1.
    """
    ours = trade(holdout, config, holdout.forecast.p_up)
    bootstrap = resampler(ours.timestamp, config, seed)
    others = _others(holdout, config)
    sharpes = [_per_bar_sharpe(net) for net in (ours.net, *(other.net for other in others.values()))]
    spread = monte_carlo(ours.net, block=config.block, count=config.bootstrap, seed=seed)
    sharpe, annual = METRICS["sharpe"], {"bars_per_year": holdout.bars_per_year}
    versus = bootstrap.score(sharpe, ours.net, **annual) - bootstrap.score(sharpe, ours.buy_and_hold, **annual)
    traded = float(ours.traded.sum())
    result = {
        "bars": len(ours.net),
        "metrics": _scores(ours, bootstrap, holdout.bars_per_year),
        "others": {name: _values(other.net, holdout.bars_per_year) for name, other in others.items()}
        | {"buy_and_hold": _values(ours.buy_and_hold, holdout.bars_per_year)},
        "minus_buy_and_hold": {"sharpe": versus.interval.as_dict()},
        "exposure": float((backtest.positions(holdout.forecast.p_up, config.threshold) != 0).mean()),
        "break_even_bps": _finite(ours.gross.sum() / traded * 1e4) if traded else None,
        "deflated_sharpe": _finite(deflated_sharpe(ours.net, np.array(sharpes), more=searched)),
        "trials": len(sharpes) + searched,
        "monte_carlo": {
            "levels": spread.levels.tolist(),
            "final_equity": spread.equity.tolist(),
            "max_drawdown": spread.drawdown.tolist(),
            "loss_probability": spread.loss_probability,
        },
    }
    if searched:
        result["searched"] = searched
    curves = pd.DataFrame(
        {
            "timestamp": ours.timestamp,
            "equity": equity_curve(ours.net),
            "gross": equity_curve(ours.gross),
            "buy_and_hold": equity_curve(ours.buy_and_hold),
            "drawdown": drawdown_curve(ours.net),
            "low": spread.band[0],
            "high": spread.band[1],
        }
    )
    return result, curves


def _others(holdout: Holdout, config: Evaluate) -> dict[str, backtest.Trades]:
    forecasts = holdout.forecast.members["direction"] | baseline_forecasts(holdout, "direction")
    return {name: trade(holdout, config, p_up) for name, p_up in forecasts.items()}


def _scores(trades: backtest.Trades, bootstrap: Bootstrap, bars_per_year: float) -> Json:
    found = {
        name: bootstrap.interval(METRICS[name], trades.net, **_options(name, bars_per_year)) for name in OF_RETURNS
    }
    found["turnover"] = bootstrap.interval(METRICS["turnover"], trades.traded)
    return {name: interval.as_dict() for name, interval in found.items()}


def _values(net: Floats, bars_per_year: float) -> Json:
    return {name: _finite(METRICS[name](net, **_options(name, bars_per_year))) for name in OF_RETURNS}


def _options(name: str, bars_per_year: float) -> dict[str, float]:
    return {"bars_per_year": bars_per_year} if name in ANNUALISED else {}


def _per_bar_sharpe(net: Floats) -> float:
    return METRICS["sharpe"](net, bars_per_year=1.0)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
