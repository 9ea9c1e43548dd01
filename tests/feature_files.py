"""Feature files as the pipeline lays them out: a folder a symbol, a file a year."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from tradeloop.atomic import write_parquet
from tradeloop.partitions import files


def write_rows(folder: Path, symbol: str, frame: pd.DataFrame) -> None:
    """Write a symbol's feature rows, of daily bars, in place of those that are there."""
    shutil.rmtree(folder / symbol, ignore_errors=True)
    for year, rows in frame.groupby(frame["timestamp"].dt.year):
        write_parquet(folder / symbol / f"{year}.parquet", rows.reset_index(drop=True))


def read_rows(folder: Path, symbol: str) -> pd.DataFrame:
    """Return all feature rows of a symbol."""
    return pd.concat([pd.read_parquet(path) for path in files(folder, symbol)], ignore_index=True)
