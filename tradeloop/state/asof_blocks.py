"""The point-in-time join out of core: block by block, the features read only once it is known which rows are wanted.

1. of a block read keys and times alone, and find which row is in force for each entity row (`in_force`);
2. read its features in runs of bounded length, and keep the rows that are wanted;
3. when all blocks are done, put the kept rows in the entities' order, column by column.

So beside the answer itself there is in memory one block's keys and times and one run of its features, however many rows
the source has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tradeloop.compute.backend import Backend
from tradeloop.state.asof_join import in_force
from tradeloop.state.asof_source import Block, Source

ROWS_AT_ONCE = 65_536
TIME = "__entity_time"
_ENTITY = "__entity"


@dataclass(frozen=True)
class Join:
    """What is joined: the source's columns `names`, under which keys and times; see `asof_join`."""

    source: Source
    keys: tuple[str, ...]
    event: str
    created: str | None
    ttl: timedelta | None
    names: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """What decides which row is in force."""
        return [*self.keys, self.event, *([self.created] if self.created else [])]


class _Span(NamedTuple):
    """Rows of some files: `start` is the first one's place in the block, `skip` its place in the files."""

    files: tuple[Path, ...]
    start: int
    skip: int
    length: int


def join_blocks(join: Join, entities: pl.DataFrame, backend: Backend) -> Iterator[tuple[str, pl.Series]]:
    """Yield the features of `join` at each of `entities` (the keys and `TIME`), in their order, column by column."""
    source = join.source
    blocks = source.blocks()
    empty = source.collect(source.scan(blocks[0].files[:1], join.names).head(0))
    numbered = entities.with_row_index(_ENTITY)
    key_types = source.scan(blocks[0].files[:1], join.keys).collect_schema()
    numbered = numbered.with_columns(pl.col(key).cast(key_types[key]) for key in join.keys)
    found = list(backend.map(partial(_join_block, join), _shares(blocks, numbered, source.folder_key)))
    order = pl.select(pl.repeat(None, entities.height, dtype=pl.UInt32)).to_series()
    rows = pl.concat([pl.Series([], dtype=pl.UInt32), *(part.drop_in_place(_ENTITY) for part in found)])
    order = order.scatter(rows, pl.int_range(len(rows), dtype=pl.UInt32, eager=True))
    with source.readable():
        for name in join.names:
            # Each part's column goes as soon as it is in the answer.
            yield name, pl.concat([empty[name], *(part.drop_in_place(name) for part in found)]).gather(order)


def _shares(
    blocks: list[Block], entities: pl.DataFrame, folder_key: str | None
) -> Iterator[tuple[Block, pl.DataFrame]]:
    """Yield each block that may hold rows of the entities, with those entities."""
    if folder_key is None:
        yield from ((block, entities) for block in blocks)
        return
    by_key = {str(key): share for (key,), share in entities.partition_by(folder_key, as_dict=True).items()}
    for block in blocks:
        if block.key in by_key:
            yield block, by_key[block.key]


def _join_block(join: Join, share: tuple[Block, pl.DataFrame]) -> pl.DataFrame:
    """Return the features of those entities that have a row in force, with the entities' numbers."""
    block, entities = share
    source = join.source
    stamps = [source.collect(source.scan([file], join.columns)) for file in block.files]
    with source.readable():
        places = in_force(
            entities,
            pl.concat(stamps),
            keys=join.keys,
            time=TIME,
            event=join.event,
            created=join.created,
            ttl=join.ttl,
        )
    wanted = entities.select(_ENTITY, place=places).drop_nulls().sort("place")
    numbers, places = wanted[_ENTITY], wanted["place"]
    kept = []
    for span in _spans(block.files, [len(frame) for frame in stamps]):
        first, end = places.search_sorted(span.start), places.search_sorted(span.start + span.length)
        if first < end:
            rows = source.collect(source.scan(span.files, join.names).slice(span.skip, span.length))
            kept.append(rows.select(pl.all().gather(places[first:end] - span.start)))
    if not kept:
        kept = [source.collect(source.scan(block.files[:1], join.names).head(0))]
    with source.readable():
        return pl.concat(kept).with_columns(numbers.alias(_ENTITY))


def _spans(files: tuple[Path, ...], lengths: list[int]) -> Iterator[_Span]:
    """Yield runs of up to `ROWS_AT_ONCE` rows: several small files, or a part of a large one."""
    start, group, held = 0, list[Path](), 0
    for file, length in zip(files, lengths, strict=True):
        if group and held + length > ROWS_AT_ONCE:
            yield _Span(tuple(group), start, 0, held)
            start, group, held = start + held, [], 0
        if length > ROWS_AT_ONCE:
            for skip in range(0, length, ROWS_AT_ONCE):
                yield _Span((file,), start + skip, skip, min(ROWS_AT_ONCE, length - skip))
            start += length
        else:
            group.append(file)
            held += length
    if group:
        yield _Span(tuple(group), start, 0, held)
