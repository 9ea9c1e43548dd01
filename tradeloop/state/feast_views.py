"""Feast's definitions, generated from a feature schema: one entity, and the row as columns and as an array."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tradeloop.schema import Schema
from tradeloop.state.feast_import import import_feast

if TYPE_CHECKING:
    from feast import Entity, FeatureView

PROJECT = "tradeloop"
ENTITY = "symbol"
VECTOR = "vector"
"""The whole feature row, float32, in the schema's order."""
FEATURE_TIME = "feature_time"
"""The row's own event time in microseconds since 1970, UTC. Feast answers a point-in-time join without saying how old
the row is, and its SQLite store keeps event times in whole seconds, read through the process's time zone."""
VECTOR_TAG = "vector_of"
"""Tag of a source: the columns, in order, that make its `VECTOR`."""
FOLDER_TAG = "folder_of"
"""Tag of a source: the join key whose value names the folder that its rows lie in, so that symbols are read apart."""
SOURCE = "../data/features"
"""Where the feature rows lie, from the feature repository's folder."""


def symbol_entity() -> Entity:
    """Return the entity that all views share."""
    import_feast()
    from feast import Entity, ValueType

    return Entity(name=ENTITY, join_keys=[ENTITY], value_type=ValueType.STRING, description="A series of bars.")


def scalar_view(schema: Schema, ttl: timedelta) -> FeatureView:
    """Return the offline view: a Float32 column a feature, for people and for point-in-time joins."""
    import_feast()
    from feast import Field
    from feast.types import Float32

    fields = [Field(name=name, dtype=Float32) for name in schema.names]
    return _view(schema, schema.scalar_view, fields, ttl=ttl, online=False, tags={})


def vector_view(schema: Schema, ttl: timedelta) -> FeatureView:
    """Return the online view: the row as one array, several times faster to read than its columns."""
    import_feast()
    from feast import Field
    from feast.types import Array, Float32

    fields = [Field(name=VECTOR, dtype=Array(Float32))]
    return _view(schema, schema.vector_view, fields, ttl=ttl, online=True, tags={VECTOR_TAG: json.dumps(schema.names)})


def _view(
    schema: Schema, name: str, fields: list[Any], *, ttl: timedelta, online: bool, tags: dict[str, str]
) -> FeatureView:
    from feast import FeatureView, Field, FileSource
    from feast.types import Int64, String

    source = FileSource(
        name=f"{name}_rows",
        path=SOURCE,
        timestamp_field="timestamp",
        created_timestamp_column="created",
        tags={FOLDER_TAG: ENTITY, **tags},
    )
    return FeatureView(
        name=name,
        entities=[symbol_entity()],
        schema=[Field(name=ENTITY, dtype=String), *fields, Field(name=FEATURE_TIME, dtype=Int64)],
        source=source,
        ttl=ttl,
        online=online,
        tags={"market": schema.market, "schema": schema.hash},
    )
