"""The list of features for people, generated from the registry."""

from __future__ import annotations

from collections.abc import Iterable

from tradeloop.config import Params
from tradeloop.features.engine import specs_for
from tradeloop.features.registry import FeatureSpec, registered

ANY = "series"


def describe(params: Params | None = None) -> str:
    """Return a Markdown table of the features: name, family, lookback in bars, definition.

    Parameters
    ----------
    params
        List what this market has; without it, everything registered, with ``series`` standing for a context series.
    """
    return "\n".join(_rows(registered(context=[ANY]) if params is None else specs_for(params)))


def _rows(specs: Iterable[FeatureSpec]) -> Iterable[str]:
    yield "| name | family | lookback | definition |"
    yield "|---|---|---:|---|"
    for spec in specs:
        definition = spec.doc.replace("|", r"\|")
        yield f"| `{spec.name}` | {spec.family} | {spec.lookback} | {definition} |"
