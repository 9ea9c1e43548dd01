"""Files of data beyond bars → canonical frames, validated at the edge with one line that names file, time and rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tradeloop.bars import TIME, from_times
from tradeloop.config import Market
from tradeloop.config.inputs import InputFiles, InputKind
from tradeloop.errors import DataError
from tradeloop.inputs.contract import KINDS, Mask
from tradeloop.sources.table import TableFormat, numbers, read_table, times

SUFFIXES = (".parquet", ".csv", ".csv.gz")


def canonical(name: InputKind, rows: pd.DataFrame, *, shown: str) -> pd.DataFrame:
    """Return the rows of a kind in the order in which they became known, or say what is wrong with them.

    The canonical frame has ``timestamp`` and ``known_at`` (`bars.TIME`) and the kind's columns (float64).

    Raises
    ------
    DataError
        One line with the file, the row's time, the value and the rule.
    """
    kind = KINDS[name]
    for column in ("timestamp", "known_at", *kind.columns):
        expected = TIME if column in ("timestamp", "known_at") else "float64"
        if column not in rows or str(rows[column].dtype) != expected:
            found = str(rows[column].dtype) if column in rows else "nothing"
            raise DataError(f"{shown}: {column} must be {expected}, got {found}")
    for column, described in kind.columns.items():
        values = rows[column].to_numpy(np.float64)
        absent = np.isnan(values).all()  # a column that the market is declared to be without
        holds = np.isfinite(values) & described.rule.holds(values)
        _refuse(rows, ~holds & ~absent, f"{column} must {described.rule.text}", [column], shown)
    for text, relation in kind.relations:
        named = [column for column in kind.columns if column in text]
        wrong = ~relation(rows) & rows[named].notna().all(axis=1).to_numpy()
        _refuse(rows, wrong, text, named, shown)
    if not kind.ahead:
        early = np.asarray(rows["known_at"] < rows["timestamp"])
        _refuse(rows, early, "known_at must not be before timestamp", ["known_at"], shown)
    ordered = rows.sort_values(["known_at", "timestamp"], kind="stable", ignore_index=True)
    return ordered[["timestamp", "known_at", *kind.columns]]


def _refuse(rows: pd.DataFrame, wrong: Mask, rule: str, columns: list[str], shown: str) -> None:
    if not wrong.any():
        return
    first = int(wrong.argmax())
    values = ", ".join(f"{column} = {rows[column].iloc[first]}" for column in columns)
    place = f"{shown} {rows.index.name or 'row'} {rows.index[first]} at {rows['timestamp'].iloc[first]}"
    more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
    raise DataError(f"{place}: {rule}, got {values}{more}")


def read_file(name: InputKind, files: InputFiles, path: Path, *, shown: str) -> pd.DataFrame:
    """Return a CSV or parquet file of a kind as a canonical frame.

    Raises
    ------
    DataError
        The file is missing or unreadable, lacks a column, or a row breaks a rule.
    """
    kind = KINDS[name]
    table = read_table(path, shown=shown)
    form = TableFormat(files.timestamp, files.timestamp_format, files.timezone)
    at = times(table, form, shown=shown)
    known = at
    if files.known_at in table.columns:
        form = TableFormat(files.known_at, files.timestamp_format, files.timezone)
        known = times(table, form, shown=shown)
    elif kind.announced:
        raise DataError(f"{shown}: {name} must say in {files.known_at!r} since when each row was known")
    rows = pd.DataFrame({"timestamp": from_times(at), "known_at": from_times(known)})
    for column, described in kind.columns.items():
        written = files.columns.get(column, column)
        if column in files.without:
            rows[column] = np.nan
        elif described.otherwise is not None and written not in table.columns:
            other = described.otherwise
            rows[column] = rows[other] if isinstance(other, str) else other
        else:
            rows[column] = numbers(table, written, shown=shown)
    rows.index = table.index
    return canonical(name, rows, shown=shown)


def file_of(files: InputFiles, root: Path, symbol: str, *, name: str) -> Path:
    """Return where a symbol's file of a kind lies.

    Raises
    ------
    DataError
        There is none, or more than one.
    """
    if "{symbol}" in files.path:
        return root / files.path.replace("{symbol}", symbol)
    path = root / files.path
    if not path.is_dir():
        return path
    found = [path / f"{symbol}{suffix}" for suffix in SUFFIXES if (path / f"{symbol}{suffix}").is_file()]
    if len(found) != 1:
        names = ", ".join(f"{symbol}{suffix}" for suffix in SUFFIXES)
        raise DataError(f"inputs.{name}: {files.path} must hold one of {names}, it holds {len(found)} of them")
    return found[0]


def read_kind(name: InputKind, market: Market, root: Path, symbol: str) -> pd.DataFrame:
    """Return the canonical frame of a symbol's data of one kind; errors as `read_file`."""
    files = market.inputs[name]
    path = file_of(files, root, symbol, name=name)
    return read_file(name, files, path, shown=str(path.relative_to(root) if path.is_relative_to(root) else path))
