"""Bringing an older state database up to date, with Alembic; imported only where there is something to do."""

from __future__ import annotations

import threading
from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

# By name, so that a Bento carries them too: it may meet an older database.
SCRIPTS = (
    "tradeloop.state.migrations.env",
    "tradeloop.state.migrations.versions.v0001_predictions_and_events",
    "tradeloop.state.migrations.versions.v0002_the_loop",
)

_ONE_AT_A_TIME = threading.Lock()
"""Alembic keeps what it works on in a global."""


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, to work on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(files("tradeloop.state") / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Run every step that the database lacks, in the transaction of `connection`: all of them take effect, or none."""
    with _ONE_AT_A_TIME:
        command.upgrade(configuration(connection), "head")
