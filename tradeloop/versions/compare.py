"""Two versions side by side: metrics with intervals, schema, everything their manifests say, size, and latency."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.errors import BundleError
from tradeloop.lifecycle import ModelRecord
from tradeloop.manifest import verify
from tradeloop.metrics import METRICS
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.state.tables import ExperimentRow
from tradeloop.version_facts import VersionFacts

ROUNDS = 400
"""How often each bundle is timed; the two take turns, so that both meet the same machine."""

_WARM_UP = 20
_BOUNDS = ("_low", "_high")
_OF_THE_FILES = ("files", "format", "schema_hash")


@dataclass(frozen=True)
class Value:
    """A metric of one version with its interval, None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MetricPair:
    """A metric of both versions; `better` is ``a``, ``b``, or None where equal, missing, or not a matter of more."""

    name: str
    a: Value
    b: Value
    better: str | None


@dataclass(frozen=True)
class Latency:
    """Microseconds that one forecast of one row takes."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Comparison:
    """What two versions have apart.

    Attributes
    ----------
    added, removed
        Features that only `b`, or only `a`, has.
    differences
        What their manifests, and the parameters of their trainings, say differently: dotted name → (a, b).
    size
        Bytes of the two bundles, None where that is not known.
    latency
        Measured now, in turns, on golden rows; None for one whose bundle is not in the store.
    """

    a: ModelRecord
    b: ModelRecord
    metrics: list[MetricPair]
    added: list[str]
    removed: list[str]
    differences: dict[str, tuple[Any, Any]]
    size: tuple[int | None, int | None]
    latency: tuple[Latency | None, Latency | None]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "a": self.a.to_dict(), "b": self.b.to_dict()}


@dataclass(frozen=True)
class _Side:
    """What is known of one version; `golden` are its golden rows, (n, d)."""

    facts: VersionFacts | None
    bundle: Bundle | None
    golden: NDArray[np.float32] | None
    training: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return self.bundle.schema.names if self.bundle else ()


def compare(registry: Registry, database: Database, store: BundleStore, *, a: str, b: str) -> Comparison:
    """Compare the versions that two names mean.

    Raises
    ------
    RegistryError
        A name means no version, or several.
    BundleError
        A bundle is in the store, but damaged.
    """
    state, facts = registry.state(), registry.facts()
    records = (state.find(a), state.find(b))
    left, right = (_side(database, store, record, facts.get(record.hash)) for record in records)
    said = [{**_flat(_manifest(side)), **_flat(side.training, "training")} for side in (left, right)]
    known = bool(left.names and right.names)
    return Comparison(
        a=records[0],
        b=records[1],
        metrics=_metrics(_measured(left), _measured(right)),
        added=[name for name in right.names if known and name not in left.names],
        removed=[name for name in left.names if known and name not in right.names],
        differences={
            name: (said[0].get(name), said[1].get(name))
            for name in sorted({**said[0], **said[1]})
            if said[0].get(name) != said[1].get(name)
        },
        size=(_size(left), _size(right)),
        latency=_measure(left, right),
    )


def _measure(a: _Side, b: _Side) -> tuple[Latency | None, Latency | None]:
    """Time each bundle on its golden rows, one row a call, taking turns."""
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(_WARM_UP + ROUNDS):
        for side, times in zip((a, b), spent, strict=True):
            if side.bundle is not None and side.golden is not None:
                row = side.golden[turn % len(side.golden)][None]
                started = time.perf_counter()
                side.bundle.forecast(row)
                times.append(1e6 * (time.perf_counter() - started))
    return _latency(spent[0]), _latency(spent[1])


def _latency(times: list[float]) -> Latency | None:
    return Latency(*(float(q) for q in np.percentile(times[_WARM_UP:], (50, 99)))) if times else None


def _side(database: Database, store: BundleStore, record: ModelRecord, facts: VersionFacts | None) -> _Side:
    query = select(ExperimentRow.params).where(ExperimentRow.model == record.hash).order_by(ExperimentRow.started_at)
    with database.read() as connection:
        trained = connection.execute(query).scalars().all()
    training = trained[-1] if trained else {}
    if not store.folder(record.hash).parent.exists():
        if facts is None:
            raise BundleError(f"nothing is known of {record.version}: its bundle is gone, and it came without facts")
        return _Side(facts, None, None, training)
    files = verify(store.folder(record.hash), expect=record.hash)
    bundle = Bundle.open(files)
    golden = np.asarray(files.json("golden.json")["features"], dtype=np.float32)
    return _Side(VersionFacts.of(bundle), bundle, golden, training)


def _manifest(side: _Side) -> dict[str, Any]:
    assert side.facts is not None
    return {name: value for name, value in side.facts.manifest.items() if name not in _OF_THE_FILES}


def _measured(side: _Side) -> Mapping[str, Any]:
    assert side.facts is not None
    return side.facts.metrics


def _size(side: _Side) -> int | None:
    return side.facts.size if side.facts else None


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted name; lists are leaves."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    leaves: dict[str, Any] = {}
    for name, value in content.items():
        leaves |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return leaves


def _metrics(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[MetricPair]:
    left, right = dict(_values(a)), dict(_values(b))
    return [_pair(name, left.get(name, Value(None)), right.get(name, Value(None))) for name in {**left, **right}]


def _values(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Yield each metric by its dotted name; ``<name>_low`` and ``<name>_high`` beside it are its interval."""
    numbers = {name: value for name, value in _flat(metrics).items() if isinstance(value, int | float)}
    for name, value in numbers.items():
        stem = next((name.removesuffix(bound) for bound in _BOUNDS if name.endswith(bound)), None)
        if stem not in numbers:
            yield name, Value(float(value), *(numbers.get(f"{name}{bound}") for bound in _BOUNDS))


def _pair(name: str, a: Value, b: Value) -> MetricPair:
    better = None
    sign = direction(name)
    if sign and a.value is not None and b.value is not None and a.value != b.value:
        better = "a" if sign * (a.value - b.value) > 0 else "b"
    return MetricPair(name, a, b, better)


def direction(name: str) -> int:
    """Return 1 where more of a metric (dotted name) is better, -1 where less is, 0 where neither is known."""
    last = name.rsplit(".", 1)[-1]
    if last.startswith("gain_over_"):
        return 1
    metric = METRICS.get(last)
    return {"higher": 1, "lower": -1}.get(metric.better, 0) if metric else 0


def metric_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return the metric that a dotted name (``direction.auc``) means, None where it is not there."""
    found = _flat(metrics).get(name)
    return float(found) if isinstance(found, int | float) else None


def names_of(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of several versions that a version can be better by."""
    return sorted({name for one in metrics for name, _ in _values(one) if direction(name)})
