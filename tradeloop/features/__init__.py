"""Features: pure functions of closed bars, the same in training, streaming and serving.

A family is a module; a function tagged with `feature` is a column. Importing this package registers all families,
in the order in which their columns stand.
"""

from __future__ import annotations

# The order of these imports is the order of the columns.
from tradeloop.features import (  # isort: skip
    trend,
    momentum,
    oscillators,
    volatility,
    volume,
    price_action,
    candles,
    statistics,
    calendar,
    session,
    context,
    stat_arb,
    multi_timeframe,
    regime,
    markov,
    garch,
    microstructure,
    derivatives,
    options,
    events,
    alpha158,
)
from tradeloop.features.catalogue import describe, listed
from tradeloop.features.engine import (
    compute,
    compute_tail,
    feature_lookback,
    schema_for,
    schema_hash,
    schema_lookback,
    specs_for,
)
from tradeloop.features.registry import FeatureSpec, Timeframe, families, feature, needed, registered

__all__ = [
    "FeatureSpec",
    "Timeframe",
    "alpha158",
    "calendar",
    "candles",
    "compute",
    "compute_tail",
    "context",
    "derivatives",
    "describe",
    "events",
    "families",
    "feature",
    "feature_lookback",
    "garch",
    "listed",
    "markov",
    "microstructure",
    "momentum",
    "multi_timeframe",
    "needed",
    "options",
    "oscillators",
    "price_action",
    "regime",
    "registered",
    "schema_for",
    "schema_hash",
    "schema_lookback",
    "session",
    "specs_for",
    "stat_arb",
    "statistics",
    "trend",
    "volatility",
    "volume",
]
