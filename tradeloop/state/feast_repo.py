"""Opening the feature store: one configuration for code and command line, and definitions applied when they lack."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradeloop.config import Params, parse_interval
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.feast_import import import_feast
from tradeloop.state.feast_views import (
    ENTITY,
    FEATURE_TIME,
    PROJECT,
    SOURCE,
    VECTOR,
    scalar_view,
    symbol_entity,
    vector_view,
)

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView, RepoConfig

REDIS_TTL_SECONDS = 30 * 24 * 3600
"""After this long without a write Redis forgets a symbol: what is left by retired schemas goes by itself."""


def feast_config(layout: Layout, params: Params) -> RepoConfig:
    """Return what feature_repo/feature_store.yaml says, with absolute paths, and the online store that params name."""
    import_feast()
    from feast import RepoConfig

    home = layout.live / "feast"
    online: dict[str, Any] = {"type": "sqlite", "path": str(home / "online.db")}
    if params.serving.online_store == "redis":
        online = {
            "type": "redis",
            "connection_string": f"{params.serving.redis_url},socket_timeout=2,socket_connect_timeout=2",
            "key_ttl_seconds": REDIS_TTL_SECONDS,
            "skip_dedup": True,  # OnlineStore guards its writes itself: Feast's guard refuses same-time corrections
        }
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry={
            "registry_store_type": "tradeloop.state.feast_registry.AtomicFileRegistryStore",
            "path": str(home / "registry.db"),
        },
        offline_store={
            "type": "tradeloop.state.asof.AsOfOfflineStore",
            "backend": params.compute.backend,
            "workers": params.compute.workers,
        },
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=layout.root / "feature_repo",
    )


def open_store(layout: Layout, params: Params, schema: Schema) -> FeatureStore:
    """Return Feast's store with the schema's views in its registry and their online tables in place.

    Idempotent, and safe to call from several processes at once: live state may have been deleted at any time.
    """
    config = feast_config(layout, params)
    from feast import FeatureStore
    from feast.infra.provider import get_provider

    ttl = parse_interval(params.store.ttl)
    views = [scalar_view(schema, ttl), vector_view(schema, ttl)]
    with file_lock(layout.live / "feast" / "registry.lock"):
        store = FeatureStore(config=config)
        if not all(_is_applied(store, view) for view in views):
            store.apply([symbol_entity(), *views])
        else:
            # The registry may have outlived the online tables.
            get_provider(config).update_infra(PROJECT, [], views[1:], [], [], partial=True)
    return store


def describe_views(params: Params, schema: Schema) -> dict[str, Any]:
    """Return what is declared to Feast, for people: the same schema and parameters give the same answer."""
    columns = {schema.scalar_view: [*schema.names, FEATURE_TIME], schema.vector_view: [VECTOR, FEATURE_TIME]}
    return {
        "project": PROJECT,
        "entity": ENTITY,
        "ttl": params.store.ttl,
        "source": SOURCE,
        "views": {
            name: {"columns": names, "online": name == schema.vector_view, "schema": schema.hash}
            for name, names in columns.items()
        },
    }


def _is_applied(store: FeatureStore, wanted: FeatureView) -> bool:
    from feast.errors import FeatureViewNotFoundException

    try:
        applied = store.get_feature_view(wanted.name)
    except FeatureViewNotFoundException:
        return False
    return bool(
        applied.ttl == wanted.ttl
        and applied.online == wanted.online
        and applied.features == wanted.features
        and applied.batch_source == wanted.batch_source
    )


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` against other processes and threads; it ends with the holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
