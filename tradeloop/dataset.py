"""The training matrix: each label joined with the feature row that was known when it was forecast."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.admission import held_back
from tradeloop.bars import Times, to_times
from tradeloop.config import TARGETS, Dataset, Params, Target
from tradeloop.errors import DataError, SchemaMismatch
from tradeloop.layout import Layout
from tradeloop.schema import Schema

KEYS = ("symbol", "timestamp", "label_end")
KEPT = "kept"
# In the order in which they are given to a row: the first that holds is its reason.
REASONS = (
    *("outside_period", "label_not_ended", "label_undefined", "no_features", "stale_features", "warm_up"),
    *("quarantined", "marked"),
)


@dataclass(frozen=True)
class Matrix:
    """Rows to learn from, n of d features, sorted by (timestamp, symbol); every value is finite.

    Attributes
    ----------
    x
        float32 (n, d) in the schema's order.
    y
        For each target float64 (n,): direction 0 or 1, return gross and log, range log.
    symbol
        (n,) str objects.
    timestamp, label_end
        ``datetime64[us]`` (n,), UTC: when the row's features were known, and when its labels were.
    """

    schema: Schema
    x: NDArray[np.float32]
    y: dict[Target, NDArray[np.float64]]
    symbol: NDArray[np.object_]
    timestamp: Times
    label_end: Times

    def __len__(self) -> int:
        return len(self.x)


def build_matrix(layout: Layout, params: Params, schema: Schema) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Join all labels with their features, point in time, through Feast; drop what is incomplete.

    A feature row counts only if its own time is the label's: an older one, which the join would fill in within its
    TTL, is a forecast from another bar.

    Returns
    -------
    frame
        The columns of `KEYS`, the schema's (float32) and the targets (float64), sorted by (timestamp, symbol).
    report
        Rows by symbol, dropped rows by reason, first and last time.

    Raises
    ------
    DataError
        A (symbol, timestamp) is labelled twice, or no row is left.
    """
    labels = _read_labels(layout, params)
    features, feature_time = _join(layout, params, schema, labels)
    held = held_back(layout, labels, exclude_marked=params.check.exclude_marked)
    reason = _reasons(labels, features, feature_time, params.dataset, held=held)
    kept = reason == KEPT
    dropped = {name: int((reason == name).sum()) for name in REASONS}
    if not kept.any():
        why = ", ".join(f"{name} {count}" for name, count in dropped.items() if count)
        raise DataError(f"the training matrix would be empty, none of {len(labels)} labelled rows is complete: {why}")
    frame = pd.concat(
        [
            labels.loc[kept, list(KEYS)].reset_index(drop=True),
            pd.DataFrame(features[kept], columns=list(schema.names)),
            labels.loc[kept, list(TARGETS)].reset_index(drop=True),
        ],
        axis=1,
    )
    frame = frame.sort_values(["timestamp", "symbol"], kind="stable", ignore_index=True)
    per_symbol = frame["symbol"].value_counts()
    report = {
        "rows": len(frame),
        "features": len(schema),
        "rows_by_symbol": {symbol: int(per_symbol.get(symbol, 0)) for symbol in params.active.symbols},
        "dropped": dropped,
        "first": frame["timestamp"].iloc[0].isoformat(),
        "last": frame["timestamp"].iloc[-1].isoformat(),
        "last_label_end": frame["label_end"].max().isoformat(),
    }
    return frame, report


def _read_labels(layout: Layout, params: Params) -> pd.DataFrame:
    """Return the label rows of all symbols, in the market's order of symbols."""
    frames = []
    for symbol in params.active.symbols:
        path = layout.labels / f"{symbol}.parquet"
        if not path.is_file():
            raise DataError(f"{path} is missing: run `python -m stages.labels` first")
        frames.append(pd.read_parquet(path, columns=[*KEYS, *TARGETS]))
    labels = pd.concat(frames, ignore_index=True)
    twice = labels.duplicated(["symbol", "timestamp"])
    if twice.any():
        row = labels[twice].iloc[0]
        raise DataError(f"{row['symbol']} at {row['timestamp']} is labelled twice; {int(twice.sum())} such rows")
    return labels


def _join(
    layout: Layout, params: Params, schema: Schema, labels: pd.DataFrame
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the features in force at each label row, and their own times (microseconds since 1970, -1: none)."""
    from tradeloop.state.feast_repo import open_store
    from tradeloop.state.feast_views import ENTITY, FEATURE_TIME

    entities = labels[["symbol", "timestamp"]].set_axis([ENTITY, "event_timestamp"], axis=1)
    table = (
        open_store(layout, params, schema)
        .get_historical_features(
            entities,
            [f"{schema.scalar_view}:{name}" for name in (*schema.names, FEATURE_TIME)],
            filter_by_created_timestamp=True,
        )
        .to_arrow()
    )
    features = np.empty((table.num_rows, len(schema)), dtype=np.float32)
    for at, name in enumerate(schema.names):
        features[:, at] = table.column(name).to_numpy()  # null: NaN
    return features, table.column(FEATURE_TIME).fill_null(-1).to_numpy()


def _reasons(
    labels: pd.DataFrame,
    features: NDArray[np.float32],
    feature_time: NDArray[np.int64],
    period: Dataset,
    *,
    held: Mapping[str, NDArray[np.bool_]],
) -> NDArray[np.object_]:
    """Return why each row is dropped, or `KEPT`; `held` says of which rows the check stage thinks ill."""
    times, ends = to_times(labels["timestamp"]), to_times(labels["label_end"])
    outside = np.zeros(len(labels), dtype=np.bool_)
    if period.start is not None:
        outside |= times < _utc(period.start)
    if period.end is not None:
        # What ends later is made of bars beyond the period; NaT is not later.
        outside |= (times > _utc(period.end)) | (ends > _utc(period.end))
    holds = {
        "outside_period": outside,
        "label_not_ended": np.isnat(ends),
        "label_undefined": ~np.isfinite(labels[list(TARGETS)].to_numpy(dtype=np.float64)).all(axis=1),
        "no_features": feature_time == -1,
        "stale_features": feature_time != times.astype(np.int64),
        "warm_up": ~np.isfinite(features).all(axis=1),
        **held,
    }
    return np.select([holds[name] for name in REASONS], np.array(REASONS, dtype=object), default=KEPT)


def _utc(time: datetime) -> np.datetime64:
    """Return a time (naive: UTC) as numpy holds it."""
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time, "us")


def load_matrix(layout: Layout) -> Matrix:
    """Read the training matrix.

    Raises
    ------
    DataError
        It is missing, not sorted, or holds a value that is not finite.
    SchemaMismatch
        Its columns are not those of the schema beside it.
    """
    path = layout.training / "matrix.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing: run `python -m stages.dataset` first")
    schema = Schema.load(layout.training / "schema.json")
    frame = pd.read_parquet(path)
    expected = [*KEYS, *schema.names, *TARGETS]
    if list(frame.columns) != expected:
        raise SchemaMismatch(f"{path} has other columns than feature schema {schema.hash[:12]} asks for")
    x = np.ascontiguousarray(frame[list(schema.names)].to_numpy(dtype=np.float32))
    y: dict[Target, NDArray[np.float64]] = {target: frame[target].to_numpy(dtype=np.float64) for target in TARGETS}
    if not (np.isfinite(x).all() and all(np.isfinite(values).all() for values in y.values())):
        raise DataError(f"{path} holds values that are not finite")
    timestamp = to_times(frame["timestamp"])
    if (np.diff(timestamp) < np.timedelta64(0)).any():
        raise DataError(f"{path} is not sorted by time")
    symbol = frame["symbol"].to_numpy(dtype=object)
    return Matrix(schema, x, y, symbol, timestamp, to_times(frame["label_end"]))


def data_hash(layout: Layout) -> str:
    """Return the SHA-256 over what the training matrix holds; how the file is compressed does not matter."""
    matrix = load_matrix(layout)
    digest = hashlib.sha256(matrix.schema.hash.encode())
    digest.update("\n".join(matrix.symbol).encode())
    for array in (matrix.timestamp, matrix.label_end, matrix.x, *(matrix.y[target] for target in TARGETS)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
