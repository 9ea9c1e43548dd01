"""Snapshots of an adaptation on their way to the store, and logged features on their way from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.engine import Connection

from tradeloop.errors import StoreError
from tradeloop.prediction_log import unpack
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database
from tradeloop.state.tables import PredictionRow


@dataclass(frozen=True)
class Snapshot:
    """A row for the store: what is to be served from now on, and why."""

    kind: Literal["snapshot", "rollback"]
    content: dict[str, Any]
    outcome_seq: int
    market_time: datetime
    reason: str


def append(
    store: AdaptationStore, model: str, snapshots: Sequence[Snapshot], connection: Connection | None = None
) -> None:
    """Append snapshots of a bundle (its hash); those that are there already stay as they are."""
    for snapshot in snapshots:
        store.append(
            model,
            snapshot.kind,
            snapshot.content,
            outcome_seq=snapshot.outcome_seq,
            market_time=snapshot.market_time,
            reason=snapshot.reason,
            connection=connection,
        )


def logged_features(database: Database, ids: Sequence[str]) -> NDArray[np.float32]:
    """Return the feature rows (n, d) of logged predictions, in the order of their ids.

    Raises
    ------
    StoreError
        A prediction is not in the log, or the rows are of different widths.
    """
    table = PredictionRow.__table__
    with database.read() as connection:
        found = connection.execute(select(table.c.id, table.c.features).where(table.c.id.in_(ids))).all()
    rows = {row.id: unpack(row.features) for row in found}
    missing = [name for name in ids if name not in rows]
    if missing or len({len(row) for row in rows.values()}) > 1:
        what = f"no prediction has the id {missing[0]!r}" if missing else "predictions of different schemas"
        raise StoreError(f"logged features: {what}")
    return np.stack([rows[name] for name in ids]) if ids else np.empty((0, 0), dtype=np.float32)


def shortened(content: Any) -> Any:
    """Return the same with nine significant digits: half the size, for less than float32 loses."""
    if isinstance(content, float):
        return float(f"{content:.9g}")
    if isinstance(content, dict):
        return {key: shortened(value) for key, value in content.items()}
    return [shortened(value) for value in content] if isinstance(content, list) else content
