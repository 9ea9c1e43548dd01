"""Runs the registered features: over a whole history, or for the newest bar of a tail. One definition, two callers."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, known_close
from tradeloop.config import Params, parse_interval
from tradeloop.errors import ConfigError, SchemaMismatch
from tradeloop.features.discovered import composed, discovered
from tradeloop.features.registry import ANY, FeatureSpec, registered
from tradeloop.inputs import alignment
from tradeloop.inputs.contract import input_columns
from tradeloop.schema import Schema

Row = NDArray[np.float32]


def specs_for(params: Params) -> list[FeatureSpec]:
    """Return the columns that `params` asks for: of its families, on the active market's interval, context and inputs.

    Those that ``features.discovered`` names stand behind them; they may be made of columns of any family.

    Raises
    ------
    ConfigError
        ``features`` names a family, or a column, that there is not.
    """
    specs, made = registered_for(params, params.features.families), params.features.discovered.columns
    if params.features.columns is not None:
        specs = _named(specs, params)
    return [*specs, *discovered(made, registered_for(params))] if made else specs


def _named(specs: Sequence[FeatureSpec], params: Params) -> list[FeatureSpec]:
    """Return, of each family of which ``features.columns`` names any, the named ones; of the other families all."""
    wanted = params.features.columns or []
    families = {spec.name: spec.family for spec in registered(context=[ANY])}
    for name in wanted:
        if name not in families:
            with_window = [known for known in families if known.rpartition("_")[0] == name]
            close = with_window[:1] or difflib.get_close_matches(name, families, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"features.columns may name what `tradeloop features --all` lists, got {name!r}{hint}")
    limited = {families[name] for name in wanted}
    return [spec for spec in specs if spec.general in wanted or spec.family not in limited]


def registered_for(params: Params, families: Sequence[str] | None = None) -> list[FeatureSpec]:
    """Return the columns of these families, by default all, that the active market has."""
    market = params.active
    return registered(
        families,
        context=market.context,
        interval=parse_interval(market.interval),
        inputs=input_columns(market),
        calendar=market.calendar,
    )


def feature_lookback(params: Params) -> int:
    """Return how many bars, the newest included, decide a feature row of the active market."""
    return max(spec.lookback for spec in specs_for(params))


def schema_for(params: Params) -> Schema:
    """Return the feature schema of the active market.

    Raises
    ------
    ConfigError
        ``features.families`` names an unknown family, or families that this market has no feature of.
    """
    specs = specs_for(params)
    if not specs:
        raise ConfigError(
            f"features.families must give the market at least one feature, got {params.features.families}"
        )
    names = tuple(spec.name for spec in specs)
    return Schema(params.market, names, schema_hash(specs), params.active.interval, params.active.calendar)


def schema_hash(specs: Sequence[FeatureSpec]) -> str:
    """Return a SHA-256 over the columns' names, order and lookbacks, and the code of their families and of their joins.

    The code is the syntax tree, without docstrings, of the family and of what it imports from this package, and of how
    context and data beyond bars are joined where a column reads them: a changed formula changes the hash, a changed
    comment does not.
    """
    columns = [[spec.name, spec.lookback, spec.context, spec.calendar] for spec in specs]
    modules: set[str] = set()
    for spec in specs:
        modules |= _closure(spec.module).union(*(_closure(part) for part in spec.parts))
    code = {module: _syntax(module) for module in sorted(modules)}
    if any(spec.context for spec in specs):
        code["context"] = syntax_hash(inspect.getsource(known_close))
    if any(spec.needs for spec in specs):
        code["inputs"] = syntax_hash(inspect.getsource(alignment))
    content = {"columns": columns, "code": code}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_NO_FORMULAS = frozenset({f"{__package__}.registry", f"{__package__}.compiled"})


@lru_cache(maxsize=64)
def _closure(module: str) -> frozenset[str]:
    """Return `module` and the modules of this package that its formulas come from."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    inside = {name for name in imported if name.startswith(f"{__package__}.") and name not in _NO_FORMULAS}
    return frozenset({module}).union(*(_closure(name) for name in inside))


@lru_cache(maxsize=64)
def _syntax(module: str) -> str:
    return syntax_hash(inspect.getsource(sys.modules[module]))


def syntax_hash(source: str) -> str:
    """Return a SHA-256 of a module's syntax tree, docstrings, comments and layout left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


Group = tuple[tuple[int, FeatureSpec], ...]


@lru_cache(maxsize=64)
def groups(schema: Schema, context: tuple[str, ...]) -> tuple[Group, ...]:
    """Return the schema's columns, each with its position, grouped by the kernel that gives them.

    Raises
    ------
    SchemaMismatch
        The schema was made by other definitions than these, or names a feature or context that is not here.
    """
    interval = parse_interval(schema.interval)
    known = {spec.name: spec for spec in registered(context=context, interval=interval, calendar=schema.calendar)}
    try:
        made = discovered([name for name in schema.names if name not in known and composed(name)], known.values())
    except ConfigError as error:
        raise SchemaMismatch(f"schema {schema.hash[:12]}: {error}") from None
    known |= {spec.name: spec for spec in made}
    if unknown := [name for name in schema.names if name not in known]:
        raise SchemaMismatch(
            f"feature {unknown[0]!r} of schema {schema.hash[:12]} is not registered, "
            f"given the context {list(context)} ({len(unknown)} such features)"
        )
    specs = [known[name] for name in schema.names]
    schema.require(schema_hash(specs), what="the code of tradeloop.features")
    placed = sorted(enumerate(specs), key=lambda item: id(item[1].kernel))
    return tuple(tuple(group) for _, group in groupby(placed, key=lambda item: id(item[1].kernel)))


def schema_lookback(schema: Schema, context: Sequence[str]) -> int:
    """Return how many bars, the newest included, decide a row of `schema`; errors as `groups`."""
    return max(spec.lookback for group in groups(schema, tuple(context)) for _, spec in group)


def compute(bars: Bars, schema: Schema) -> Row:
    """Return the feature rows of all bars.

    Parameters
    ----------
    bars
        Closed bars, oldest first, with the context series that the schema names.
    schema
        What `schema_for` returned.

    Returns
    -------
    ndarray, float32, (n, len(schema))
        Row i is known at the close of bar i. NaN in a column's first ``lookback - 1`` rows, and in a context column
        where the series is not known; never infinite. Columns lie contiguous in memory.

    Raises
    ------
    SchemaMismatch
        The schema was made by other definitions than these, or names a feature or context that is not here.
    """
    columns = np.full((len(schema), len(bars)), np.nan, dtype=np.float32)
    for group in groups(schema, tuple(bars.context)):
        values = group[0][1].kernel(bars)
        for position, spec in group:
            start = spec.lookback - 1
            columns[position, start:] = spec.pick(values)[start:]
    return columns.T


def compute_tail(bars: Bars, schema: Schema) -> Row:
    """Return the feature row of the newest bar, from the last `schema_lookback` bars; older ones do not matter.

    Equal to the last row of `compute` on the whole history: see `tradeloop.features.contract`. A column whose lookback
    is longer than `bars` is NaN. Returns float32, (len(schema),); errors as `compute`.
    """
    row = np.full(len(schema), np.nan, dtype=np.float32)
    tails: dict[int, Bars] = {}
    for group in groups(schema, tuple(bars.context)):
        first = group[0][1]
        if first.lookback > len(bars):
            continue
        size = _tail(first.lookback)
        tail = tails.get(size)
        if tail is None:
            tail = tails[size] = bars[-size:]
        values = first.kernel(tail)
        for position, spec in group:
            row[position] = spec.pick(values)[-1]
    return row


@lru_cache(maxsize=1024)
def _tail(lookback: int) -> int:
    """Return how many bars a kernel is given for the newest row: at least its lookback.

    More bars change nothing, and kernels that are given the same ones share what `Bars.memo` keeps. Up to 64 bars cost
    next to nothing beyond the call itself.
    """
    return max(64, 1 << (lookback - 1).bit_length())
