"""Feast's offline store over parquet files, by an as-of join (``type: tradeloop.state.asof.AsOfOfflineStore``).

Feast's own local stores are not fit for training: `file` drops unmatched rows and collapses duplicates, `duckdb` joins
every pair of rows within the TTL, `ray` ignores the TTL; and none hides rows created later unless asked. This one keeps
each entity row, in its order, and **always** hides what had not been written yet at an entity row's time.

A source may declare columns that its files don't hold (see `feast_views`): `VECTOR`, the feature row as one array,
where its tags name the columns, and `FEATURE_TIME`, the row's own event time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from tradeloop.errors import StoreError
from tradeloop.state.feast_views import FEATURE_TIME, VECTOR, VECTOR_TAG

if TYPE_CHECKING:
    import polars as pl


class AsOfOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast has no types
    """Feast finds this class by its name; there is nothing to set."""

    type: str = "tradeloop.state.asof.AsOfOfflineStore"


class AsOfJob(RetrievalJob):  # type: ignore[misc]  # Feast has no types
    """A query that runs when its result is asked for."""

    def __init__(
        self,
        query: Callable[[], pa.Table],
        *,
        metadata: RetrievalMetadata | None = None,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
    ) -> None:
        self._query = query
        self._metadata = metadata
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        del timeout
        return self._query()

    @property
    def full_feature_names(self) -> bool:
        """Whether a feature's column carries its view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata


class AsOfOfflineStore(OfflineStore):  # type: ignore[misc]  # Feast has no types
    """Point-in-time joins, and scans for materialisation, over folders of parquet files."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,
        **_: Any,
    ) -> RetrievalJob:
        """Join features to `entity_df`; rows created later than an entity row's time never count, asked or not.

        Raises
        ------
        StoreError
            `entity_df` is no data frame, or holds a column named like a feature.
        """
        del filter_by_created_timestamp  # always on: with it off, restated rows leak
        if not isinstance(entity_df, pd.DataFrame):
            raise StoreError(f"point-in-time joins need an entity frame of pandas, got {type(entity_df).__name__}")
        time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        entities = entity_df
        if not isinstance(entities[time].dtype, pd.DatetimeTZDtype):
            entities = entities.assign(**{time: pd.to_datetime(entities[time], utc=True)})

        def query() -> pa.Table:
            table = pa.Table.from_pandas(entities, preserve_index=False)
            for view in feature_views:
                for name, column in _join_view(config, view, feature_refs, (table, time), full_feature_names).items():
                    if name in table.column_names:
                        raise StoreError(f"{name!r} of {view.name} is there already; ask for full_feature_names")
                    table = table.append_column(name, column)
            return table

        return AsOfJob(
            query,
            metadata=RetrievalMetadata(
                feature_refs, [c for c in entities.columns if c != time], entities[time].min(), entities[time].max()
            ),
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return each key's newest row (by event, then created time) in the span, as it was known at `end_date`."""
        stamps = [timestamp_field, created_timestamp_column] if created_timestamp_column else [timestamp_field]

        def query() -> pa.Table:
            import polars as pl

            rows = scan(config, data_source, [*join_key_columns, *feature_name_columns, *stamps])
            rows = rows.filter(
                pl.col(timestamp_field) >= _aware(start_date), *(pl.col(stamp) <= _aware(end_date) for stamp in stamps)
            )
            newest = _collect(rows, data_source).sort(stamps, maintain_order=True)
            return _to_arrow(newest.unique(join_key_columns, keep="last", maintain_order=True))

        return AsOfJob(query)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return every row, restated ones too, with its event time in the span (both ends included)."""
        stamps = [timestamp_field, created_timestamp_column] if created_timestamp_column else [timestamp_field]

        def query() -> pa.Table:
            import polars as pl

            rows = scan(config, data_source, [*join_key_columns, *feature_name_columns, *stamps])
            if start_date is not None:
                rows = rows.filter(pl.col(timestamp_field) >= _aware(start_date))
            if end_date is not None:
                rows = rows.filter(pl.col(timestamp_field) <= _aware(end_date))
            return _to_arrow(_collect(rows, data_source))

        return AsOfJob(query)


def scan(config: RepoConfig, source: FileSource, columns: Sequence[str]) -> pl.LazyFrame:
    """Return a lazy frame of `columns`, the source's field mapping and derived columns applied, datetimes in UTC.

    Raises
    ------
    StoreError
        There are no parquet files, or one lacks a column.
    """
    import polars as pl

    from tradeloop.state.asof_join import finest_unit, to_utc

    # normpath: the repository's folder, which a relative path starts from, need not be there (it is not in a Bento)
    path = Path(os.path.normpath(FileSource.get_uri_for_file_path(config.repo_path, source.path)))
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise StoreError(f"{path} holds no parquet files: run the features stage first")
    frame = pl.scan_parquet(files)
    schema = _collect(frame.head(0), source).schema
    derived: dict[str, pl.Expr] = {FEATURE_TIME: to_utc(source.timestamp_field, "us").dt.epoch("us")}
    if VECTOR_TAG in source.tags:
        derived[VECTOR] = pl.concat_list(json.loads(source.tags[VECTOR_TAG]))
    stored_as = {new: old for old, new in source.field_mapping.items()}
    wanted = []
    for name in dict.fromkeys(columns):
        stored = stored_as.get(name, name)
        if stored in schema:
            dtype = schema[stored]
            column = to_utc(stored, finest_unit([dtype])) if dtype.is_temporal() else pl.col(stored)
        elif name in derived:
            column = derived[name]
        else:
            raise StoreError(f"{path} has no column {stored!r}: it was made under another schema")
        wanted.append(column.alias(name))
    return frame.select(wanted)


def _join_view(
    config: RepoConfig, view: FeatureView, refs: Sequence[str], entities: tuple[pa.Table, str], full_names: bool
) -> dict[str, pa.ChunkedArray]:
    """Return the columns that `view` adds to the entity table (given with the name of its time)."""
    import polars as pl

    from tradeloop.state.asof_join import asof_join, to_utc

    table, time = entities
    source = view.batch_source
    names = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == view.projection.name_to_use()]
    renamed = view.projection.join_key_map
    keys = [column.name for column in view.entity_columns]
    event, created = source.timestamp_field, source.created_timestamp_column or None
    stamps = [event, created] if created else [event]
    rows = scan(config, source, [*keys, *stamps, *names])
    wanted = pl.from_arrow(table.select([*(renamed.get(key, key) for key in keys), time]))
    assert isinstance(wanted, pl.DataFrame)
    wanted.columns = [*keys, "__entity_time"]
    key_types = rows.collect_schema()
    wanted = wanted.with_columns(pl.col(key).cast(key_types[key]) for key in keys)
    times = wanted.select(to_utc("__entity_time", "us")).to_series()
    first, last = times.min(), times.max()
    if isinstance(first, datetime) and isinstance(last, datetime):
        # a microsecond of slack: entity times may be nanoseconds
        rows = rows.filter(pl.col(event) <= last + timedelta(microseconds=1))
        if view.ttl:
            rows = rows.filter(pl.col(event) >= first - view.ttl)
    rows = rows.filter(pl.col(key).is_in(wanted[key].unique().implode()) for key in keys)
    joined = asof_join(
        wanted, _collect(rows, source), keys=keys, time="__entity_time", event=event, created=created, ttl=view.ttl
    )
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    result = _to_arrow(joined.select(names))
    return {prefix + name: result.column(name) for name in names}


def _collect(frame: pl.LazyFrame, source: FileSource) -> pl.DataFrame:
    import polars as pl

    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StoreError(f"{source.path} is not readable: {' '.join(str(error).split())}") from None


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    import polars as pl

    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
