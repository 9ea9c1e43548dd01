"""What Alembic runs to get a connection: that of `tradeloop.state.upgrade`; for its command line the project's."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine

from tradeloop.config import load_params
from tradeloop.layout import Layout
from tradeloop.state.database import database_url
from tradeloop.state.tables import Base, UtcTime


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our own column type into a new script as what it is made of: a script must outlive our code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_item=_render)
    with context.begin_transaction():
        context.run_migrations()


def _project_url() -> str:
    layout = Layout.current()
    return database_url(layout, load_params(layout.params))


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with create_engine(_project_url()).connect() as opened:
        _run(opened)
