"""What the loop remembers between turns, and until which outcome: one row a component, written with the turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from tradeloop.state.database import Database
from tradeloop.state.tables import CheckpointRow

_TABLE = CheckpointRow.__table__


@dataclass(frozen=True)
class Checkpoint:
    """A component's memory as of an outcome."""

    outcome_seq: int
    content: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one market."""

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market

    def read(self) -> dict[str, Checkpoint]:
        """Return all components' memories, which are of one turn."""
        query = select(_TABLE.c.component, _TABLE.c.outcome_seq, _TABLE.c.content)
        with self._database.read() as connection:
            rows = connection.execute(query.where(_TABLE.c.market == self._market)).all()
        return {component: Checkpoint(int(seq), content) for component, seq, content in rows}

    def write(self, connection: Connection, states: Mapping[str, Mapping[str, Any]], outcome_seq: int) -> None:
        """Replace all memories, in the caller's transaction."""
        connection.execute(delete(CheckpointRow).where(_TABLE.c.market == self._market))
        now = datetime.now(UTC)
        rows = [
            {
                "market": self._market,
                "component": component,
                "outcome_seq": outcome_seq,
                "wall_time": now,
                "content": dict(state),
            }
            for component, state in states.items()
        ]
        connection.execute(insert(CheckpointRow), rows)
