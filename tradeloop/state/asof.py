"""Feast's offline store over parquet files, by an as-of join (``type: tradeloop.state.asof.AsOfOfflineStore``).

Feast's own local stores are not fit for training: `file` drops unmatched rows and collapses duplicates, `duckdb` joins
every pair of rows within the TTL, `ray` ignores the TTL; and none hides rows created later unless asked. This one keeps
each entity row, in its order, and **always** hides what had not been written yet at an entity row's time.

A source may declare columns that its files don't hold (see `feast_views`): `VECTOR`, the feature row as one array,
where its tags name the columns, and `FEATURE_TIME`, the row's own event time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from tradeloop.compute.backend import open_backend
from tradeloop.config import Compute
from tradeloop.errors import StoreError
from tradeloop.state.asof_source import Source

if TYPE_CHECKING:
    import polars as pl


class AsOfOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast has no types
    """Feast finds this class by its name. The others are those of ``compute`` in params.yaml."""

    type: str = "tradeloop.state.asof.AsOfOfflineStore"
    backend: Literal["local", "ray"] = "local"
    workers: int = 2


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
                for name, column in _join_view(config, view, feature_refs, (table, time), full_feature_names):
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

            source = Source.of(data_source, config.repo_path)
            newest = []
            for block in source.blocks():
                rows = source.scan(block.files, [*join_key_columns, *feature_name_columns, *stamps])
                rows = rows.filter(
                    pl.col(timestamp_field) >= _aware(start_date),
                    *(pl.col(stamp) <= _aware(end_date) for stamp in stamps),
                )
                found = source.collect(rows).sort(stamps, maintain_order=True)
                newest.append(found.unique(join_key_columns, keep="last", maintain_order=True))
            with source.readable():
                return _to_arrow(pl.concat(newest))

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

            source = Source.of(data_source, config.repo_path)
            files = [file for block in source.blocks() for file in block.files]
            rows = source.scan(files, [*join_key_columns, *feature_name_columns, *stamps])
            if start_date is not None:
                rows = rows.filter(pl.col(timestamp_field) >= _aware(start_date))
            if end_date is not None:
                rows = rows.filter(pl.col(timestamp_field) <= _aware(end_date))
            return _to_arrow(source.collect(rows))

        return AsOfJob(query)


def _join_view(
    config: RepoConfig, view: FeatureView, refs: Sequence[str], entities: tuple[pa.Table, str], full_names: bool
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns that `view` adds to the entity table (given with the name of its time)."""
    import polars as pl

    from tradeloop.state.asof_blocks import TIME, Join, join_blocks

    table, time = entities
    names = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == view.projection.name_to_use()]
    renamed = view.projection.join_key_map
    keys = [column.name for column in view.entity_columns]
    wanted = pl.from_arrow(table.select([*(renamed.get(key, key) for key in keys), time]))
    assert isinstance(wanted, pl.DataFrame)
    wanted.columns = [*keys, TIME]
    batch = view.batch_source
    join = Join(
        Source.of(batch, config.repo_path),
        keys=tuple(keys),
        event=batch.timestamp_field,
        created=batch.created_timestamp_column or None,
        ttl=view.ttl,
        names=tuple(names),
    )
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    with open_backend(Compute(backend=config.offline_store.backend, workers=config.offline_store.workers)) as backend:
        for name, column in join_blocks(join, wanted, backend):
            yield prefix + name, _to_arrow(column.to_frame()).column(0)


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    import polars as pl

    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
