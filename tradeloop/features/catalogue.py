"""The list of features for people, generated from the registry: definitions, grouped by family, windows together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from tradeloop.config import Params
from tradeloop.features.engine import specs_for
from tradeloop.features.registry import ANY, FeatureSpec, Timeframe, column_prefix, registered

_NAME = r"[A-ZÀ-Þ][\w’'–-]+"
_SOURCE = re.compile(rf"({_NAME}(?:(?:, (?:and )?| and | de ){_NAME})*) \(?([12]\d{{3}})\)")
_POSSESSIVE = re.compile(r"['’]s$")
_PLACEHOLDERS = {"window": "n", "series": ANY, "timeframe": "timeframe"}


@dataclass(frozen=True)
class Definition:
    """One definition, and the columns that windows, timeframes and context series make of it.

    Attributes
    ----------
    columns
        Their names, ``n`` for the window, ``series`` for a context series, ``timeframe`` for a timeframe; `count` in
        all.
    values
        What these stand for: ``n = 5, 20``; empty if there are none.
    lookback
        In bars, of the shortest to the longest; the warm-up is one bar less.
    text
        The docstring.
    unknown
        Where a value is NaN after the warm-up; empty: nowhere.
    """

    family: str
    columns: tuple[str, ...]
    values: str
    lookback: str
    text: str
    unknown: str
    count: int


def listed(params: Params | None = None) -> list[FeatureSpec]:
    """Return the market's features; without `params` all that are registered, `series` being the context series."""
    return registered(context=[ANY]) if params is None else specs_for(params)


def definitions(specs: Iterable[FeatureSpec]) -> list[Definition]:
    """Return the definitions of columns, in their order."""
    found: dict[tuple[str, str], list[FeatureSpec]] = {}
    for spec in specs:
        found.setdefault((spec.family, _template(spec)), []).append(spec)
    return [_definition(text, columns) for (_, text), columns in found.items()]


def sources(text: str) -> str:
    """Return the publications that a definition names.

    Examples
    --------
    >>> sources("Log of Amihud's (2002) illiquidity, after Kyle (1985).")
    'Amihud 2002; Kyle 1985'
    """
    found = [f"{_POSSESSIVE.sub('', names)} {year}" for names, year in _SOURCE.findall(text)]
    return "; ".join(dict.fromkeys(found))


def unknown(spec: FeatureSpec) -> str:
    """Return where a feature is NaN although its lookback is full; empty if nowhere."""
    needs = [*([f"the close of {spec.context}"] if spec.context else []), *spec.needs]
    return f"while its bars hold one at which {' or '.join(needs)} is not known" if needs else ""


def entry(spec: FeatureSpec) -> dict[str, Any]:
    """Return all that is to be said of a column, for a program."""
    warm_up, later = spec.lookback - 1, unknown(spec)
    return {
        "name": spec.name,
        "family": spec.family,
        "lookback": spec.lookback,
        "definition": spec.doc,
        "source": sources(spec.doc) or None,
        "warm_up": warm_up,
        "nan": "; ".join(filter(None, [f"in its first {warm_up} bars" if warm_up else "", later])) or "never",
        "scale_free": spec.scale_free,
    }


def describe(specs: Iterable[FeatureSpec]) -> str:
    """Return features as Markdown: a table for each family, a row for each definition."""
    families = groupby(definitions(specs), key=lambda one: one.family)
    return "\n\n".join("\n".join(_table(family, list(rows))) for family, rows in families)


def _table(family: str, rows: Sequence[Definition]) -> Iterable[str]:
    count = sum(one.count for one in rows)
    yield f"## {family}: {count} column{'' if count == 1 else 's'}\n"
    yield "| columns | lookback | definition | source |"
    yield "|---|---:|---|---|"
    for one in rows:
        names = ", ".join(f"`{name}`" for name in one.columns) + (f"; {one.values}" if one.values else "")
        text = one.text.replace("|", r"\|") + (f" NaN {one.unknown}." if one.unknown else "")
        yield f"| {names} | {one.lookback} | {text} | {sources(one.text)} |"


def _definition(text: str, specs: Sequence[FeatureSpec]) -> Definition:
    values: dict[str, dict[str, None]] = {}
    for spec in specs:
        for keyword, value in _given(spec).items():
            if keyword in _PLACEHOLDERS and value != ANY:
                shown = value.name if isinstance(value, Timeframe) else str(value)
                values.setdefault(_PLACEHOLDERS[keyword], {})[shown] = None
    lookbacks = sorted({spec.lookback for spec in specs})
    few = len(lookbacks) <= 5
    return Definition(
        family=specs[0].family,
        columns=tuple(dict.fromkeys(_pattern(spec) for spec in specs)),
        values="; ".join(f"{name} = {', '.join(shown)}" for name, shown in values.items()),
        lookback=", ".join(map(str, lookbacks)) if few else f"{lookbacks[0]} to {lookbacks[-1]}",
        text=text,
        unknown=unknown(specs[0]).replace(specs[0].context or ANY, ANY),
        count=len(specs),
    )


def _given(spec: FeatureSpec) -> dict[str, Any]:
    return spec.kernel.keywords if isinstance(spec.kernel, partial) else {}


def _template(spec: FeatureSpec) -> str:
    """Return the definition before windows, timeframes and series are put in."""
    function = spec.kernel.func if isinstance(spec.kernel, partial) else spec.kernel
    text = " ".join((function.__doc__ or spec.doc).split())
    text = re.sub(rf"`({'|'.join(_PLACEHOLDERS)})`", lambda match: _PLACEHOLDERS[match[1]], text)
    return text.replace(", n = n", "").replace("n = n", "n")


def _pattern(spec: FeatureSpec) -> str:
    """Return the column's name with placeholders for what multiplied it."""
    name, given, front, back = spec.name, _given(spec), "", ""
    if "timeframe" in given:
        name, back = name.removesuffix(f"_{given['timeframe'].name}"), "_timeframe"
    if "window" in given:
        name, back = name.removesuffix(f"_{given['window']}"), f"_n{back}"
    if "series" in given:
        name, front = name.removeprefix(f"{column_prefix(given['series'])}_"), f"{ANY}_"
    return f"{front}{name}{back}"
