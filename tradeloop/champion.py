"""The champion of the active market, for those who compare with it, serve it or ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params
from tradeloop.layout import Layout
from tradeloop.registry import Registry
from tradeloop.state.database import Database, database_url


@contextmanager
def open_registry(layout: Layout, params: Params) -> Iterator[Registry]:
    """Yield the registry of the active market; its database is closed at the end."""
    database = Database.open(database_url(layout, params))
    try:
        yield Registry(database, params.market)
    finally:
        database.close()


def champion_bundle(layout: Layout, params: Params) -> Bundle | None:
    """Return the bundle that serves, or None before the first promotion.

    Raises
    ------
    BundleError
        There is a champion, but its bundle is nowhere or damaged.
    """
    with open_registry(layout, params) as registry:
        champion = registry.champion()
    return None if champion is None else BundleStore(layout, params).get(champion.hash)
