"""Feast's file sources as polars reads them: which files they have, and their columns under Feast's names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feast.infra.offline_stores.file_source import FileSource

from tradeloop.errors import StoreError
from tradeloop.state.feast_views import FEATURE_TIME, FOLDER_TAG, VECTOR, VECTOR_TAG

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Block:
    """Files that are joined as one, in order; `key` is the value of the folder key that all their rows have, if known.

    No key's rows are in two blocks of a source.
    """

    files: tuple[Path, ...]
    key: str | None = None


@dataclass(frozen=True)
class Source:
    """What is needed to read a source in any process.

    Attributes
    ----------
    path
        A parquet file, or a folder of them (and of folders of them).
    timestamp
        The event time's name, as stored.
    stored_as
        Feast's column names to those of the files, where they differ.
    vector
        The columns that make `VECTOR`, if the source has it.
    folder_key
        The join key whose value is the name of the folder that its rows lie in; None: rows lie anywhere.
    """

    path: Path
    timestamp: str
    stored_as: Mapping[str, str]
    vector: tuple[str, ...] = ()
    folder_key: str | None = None

    @classmethod
    def of(cls, source: FileSource, repository: Path) -> Source:
        """Return what Feast declares; relative paths start at `repository`."""
        # normpath: the repository's folder, which a relative path starts from, need not be there (it is not in a Bento)
        path = Path(os.path.normpath(FileSource.get_uri_for_file_path(repository, source.path)))
        stored_as = {new: old for old, new in source.field_mapping.items()}
        vector = tuple(json.loads(source.tags.get(VECTOR_TAG, "[]")))
        return cls(path, source.timestamp_field, stored_as, vector, source.tags.get(FOLDER_TAG))

    def blocks(self) -> list[Block]:
        """Return all blocks, in order of the folder key.

        Raises
        ------
        StoreError
            There are no parquet files.
        """
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.parquet"))
        folders = sorted(path for path in self.path.glob("*") if path.is_dir())
        inside = {folder.name: tuple(sorted(folder.glob("*.parquet"))) for folder in folders}
        if self.folder_key:
            blocks = [Block(found, key) for key, found in inside.items() if found]
        else:
            together = (*files, *(file for found in inside.values() for file in found))
            blocks = [Block(together)] if together else []
        if not blocks:
            raise StoreError(f"{self.path} holds no parquet files: run the features stage first")
        return blocks

    def scan(self, files: Sequence[Path], columns: Sequence[str]) -> pl.LazyFrame:
        """Return a lazy frame of `columns`, in order of the files; datetimes are in UTC.

        Raises
        ------
        StoreError
            A column is not there, or the first file is not readable.
        """
        import polars as pl

        from tradeloop.state.asof_join import finest_unit, to_utc

        frame = pl.scan_parquet(list(files))
        with self.readable():
            schema = frame.collect_schema()
        derived: dict[str, pl.Expr] = {FEATURE_TIME: to_utc(self.timestamp, "us").dt.epoch("us")}
        if self.vector:
            derived[VECTOR] = pl.concat_list(self.vector)
        wanted = []
        for name in dict.fromkeys(columns):
            stored = self.stored_as.get(name, name)
            if stored in schema:
                dtype = schema[stored]
                column = to_utc(stored, finest_unit([dtype])) if dtype.is_temporal() else pl.col(stored)
            elif name in derived:
                column = derived[name]
            else:
                raise StoreError(f"{self.path} has no column {stored!r}: it was made under another schema")
            wanted.append(column.alias(name))
        return frame.select(wanted)

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Run a query over the files; what polars cannot read is a StoreError of one line."""
        with self.readable():
            return frame.collect()

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn what polars says of the files into one line."""
        import polars as pl

        try:
            yield
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StoreError(f"{self.path} is not readable: {' '.join(str(error).split())}") from None
