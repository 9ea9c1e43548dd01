"""Where bars come from. `open_source` finds the implementation by its module's name."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from tradeloop.config import Market
from tradeloop.errors import ConfigError
from tradeloop.sources.base import Source

_NOT_SOURCES = {"base", "table", "streamed"}


def registered() -> tuple[str, ...]:
    """Return the names of all sources, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_SOURCES))


def open_source(market: Market, *, root: Path, seed: int, streamed: Path | None = None) -> Source:
    """Return the source that `market` names.

    Parameters
    ----------
    streamed
        The folder of the market's journal, whose bars are put in; None: only what the source itself has.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if market.source not in registered():
        raise ConfigError(f"source must be one of {list(registered())}, got {market.source!r}")
    module = importlib.import_module(f"{__name__}.{market.source}")
    implementation: type[Source] = next(
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Source) and member.__module__ == module.__name__
    )
    source = implementation(market, root=root, seed=seed)
    if streamed is None:
        return source
    from tradeloop.sources.streamed import Streamed

    return Streamed(source, streamed)
