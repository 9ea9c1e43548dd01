"""The report's figures, each an SVG string: text stays text, the same data gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tradeloop.config import Target
from tradeloop.metrics.primary import SKILL

OURS, SOFT, GREY, BAD = "#0b6e6e", "#9fd0cd", "#7d8590", "#b3441e"
MEMBERS = {"random_forest": "#8c6bb1", "xgboost": "#d08c2e", "mlp": "#5b8cc9", "stack": OURS}
AXIS = {"direction": ("AUC", 0.5), "return": ("IC", 0.0), "range": ("R²", 0.0)}  # name, and what chance scores
SHOWN_BARS = 250
_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_ROOT = re.compile(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", re.DOTALL)


def _style() -> AbstractContextManager[None]:
    settings: dict[str, Any] = {
        "svg.hashsalt": "tradeloop",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "grid.color": "#e6e8eb",
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
    return mpl.rc_context(settings)


def _svg(draw: Callable[[Figure], None], width: float, height: float, title: str) -> str:
    """Return what `draw` puts on a figure of that many inches as an SVG element without size, to fill its place."""
    with _style():
        figure = Figure(figsize=(width, height))
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    text = _METADATA.sub("", buffer.getvalue())
    text = text[text.index("<svg ") :]
    return _ROOT.sub(lambda match: f'<svg {_SPACES} role="img" aria-label="{title}" {match[1]}>', text, count=1)


def equity(curves: pd.DataFrame) -> str:
    """Return compounded equity after costs with the spread of resampled histories, and the drawdown below it."""
    time = pd.to_datetime(curves["timestamp"])

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.fill_between(time, curves["low"], curves["high"], color=SOFT, alpha=0.45, lw=0, label="90% of resamples")
        top.plot(time, curves["buy_and_hold"], color=GREY, lw=1.1, label="buy and hold")
        top.plot(time, curves["gross"], color=OURS, lw=0.9, ls=":", label="before costs")
        top.plot(time, curves["equity"], color=OURS, lw=1.6, label="after costs")
        top.set_ylabel("value of 1")
        top.legend(loc="upper left", ncols=2, fontsize=9)
        bottom.fill_between(time, curves["drawdown"] * 100, 0, color=BAD, alpha=0.5, lw=0)
        bottom.set_ylabel("drawdown, %")

    return _svg(draw, 9, 4.6, "Equity and drawdown")


def reliability(bins: pd.DataFrame) -> str:
    """Return forecast against frequency, the bars being two standard errors of a frequency of that many rows."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        error = 2 * np.sqrt(bins["mean_p"] * (1 - bins["mean_p"]) / bins["count"])
        low = float(min(bins["mean_p"].min(), (bins["frequency"] - error).min())) - 0.01
        high = float(max(bins["mean_p"].max(), (bins["frequency"] + error).max())) + 0.01
        axes.plot([low, high], [low, high], color=GREY, lw=1, ls="--", label="calibrated")
        axes.errorbar(
            bins["mean_p"], bins["frequency"], yerr=error, fmt="o", color=OURS, ms=5, lw=1, label="tenths of the rows"
        )
        axes.set(xlabel="forecast probability of up", ylabel="share that went up", xlim=(low, high), ylim=(low, high))
        axes.legend(loc="upper left", fontsize=9)

    return _svg(draw, 4.4, 3.8, "Reliability of the direction probability")


def range_scatter(ranges: pd.DataFrame) -> str:
    """Return forecast against realised volatility a bar, in percent, both on log scales."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        forecast, realised = ranges["forecast"] * 100, ranges["realised"] * 100
        axes.scatter(forecast, realised, s=5, color=OURS, alpha=0.25, lw=0, rasterized=True)
        ends = np.quantile(np.concatenate([forecast, realised]), [0.001, 0.999])
        axes.plot(ends, ends, color=GREY, lw=1, ls="--")
        axes.set(xlabel="expected range, % a bar", ylabel="realised range, % a bar", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
            axis.set_minor_locator(mpl.ticker.NullLocator())

    return _svg(draw, 4.4, 3.8, "Expected and realised range")


def range_path(ranges: pd.DataFrame, coverage: float) -> str:
    """Return one symbol's newest bars: realised range, forecast, and the interval."""
    symbol = str(ranges["symbol"].iloc[0])
    shown = ranges[ranges["symbol"] == symbol].tail(SHOWN_BARS)
    time = pd.to_datetime(shown["timestamp"])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        band = f"{coverage:.0%} interval"
        axes.fill_between(time, shown["low"] * 100, shown["high"] * 100, color=SOFT, alpha=0.55, lw=0, label=band)
        axes.plot(time, shown["realised"] * 100, color=GREY, lw=0.8, marker="o", ms=1.8, label="realised")
        axes.plot(time, shown["forecast"] * 100, color=OURS, lw=1.6, label="expected")
        axes.set_ylabel(f"range of {symbol}, % a bar")
        axes.legend(loc="upper left", ncols=3, fontsize=9)

    return _svg(draw, 9, 3.2, f"Range of {symbol}")


def importance(table: pd.DataFrame, target: Target, top: int = 12) -> str:
    """Return the features whose permutation costs a target the most skill."""
    shown = table[table["target"] == target].nlargest(top, "importance", keep="first").iloc[::-1]
    name, _ = AXIS[target]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.barh(shown["feature"], shown["importance"], color=OURS, height=0.65)
        axes.set(xlabel=f"{name} lost", title=target)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))

    return _svg(draw, 4.2, 3.6, f"Feature importance for {target}")


def folds(table: pd.DataFrame, target: Target) -> str:
    """Return each model's skill by walk-forward fold."""
    name, chance = AXIS[target]
    shown = table[(table["target"] == target) & (table["metric"] == SKILL[target])]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(chance, color=GREY, lw=1, ls="--")
        for model, part in shown.groupby("model", sort=True):
            thick = 2.2 if model == "stack" else 1.2
            colour = MEMBERS.get(str(model), GREY)
            axes.plot(part["fold"], part["value"], marker="o", ms=3.5, lw=thick, color=colour, label=str(model))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.set(xlabel="fold", ylabel=name, title=target)
        axes.legend(fontsize=8)

    return _svg(draw, 4.2, 3.2, f"Scores by fold for {target}")
