"""The serving artifact: ONNX graphs, calibrators, quantiles, schema and evidence in one content-hashed folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tradeloop.ensemble import Ensemble, Forecast, Spec
from tradeloop.errors import BundleError
from tradeloop.manifest import DOCUMENTS, MANIFEST, Facts, Manifest, Verified, canonical, seal, verify
from tradeloop.reference import Reference
from tradeloop.schema import Schema

VERSION_LENGTH = 12
TOLERANCE = 1e-6
FORECASTS = ("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high")


@dataclass(frozen=True)
class Bundle:
    """A verified model, ready to forecast; any number of threads may share it.

    Attributes
    ----------
    hash
        SHA-256 over everything in it.
    metrics, gate
        What evaluation and gate said of it.
    reference
        What its holdout says of it: what live skill and drift are measured against.
    """

    hash: str
    manifest: Manifest
    schema: Schema
    ensemble: Ensemble
    metrics: Mapping[str, Any]
    gate: Mapping[str, Any]
    reference: Reference

    @property
    def version(self) -> str:
        """The short name of the hash."""
        return self.hash[:VERSION_LENGTH]

    @property
    def passed(self) -> bool:
        """Whether the gate let it through."""
        return self.gate.get("verdict") == "pass"

    @classmethod
    def load(cls, folder: Path, *, expect: str | None = None) -> Self:
        """Verify the files in `folder`, open the graphs from the bytes that were verified, and try the golden rows.

        Raises
        ------
        BundleError
            One line that names the file and the rule; see `manifest.verify`.
        """
        return cls.open(verify(folder, expect=expect))

    @classmethod
    def open(cls, files: Verified) -> Self:
        """Open verified files."""
        spec, schema = files.json("stack.json"), _schema(files)
        metrics, gate = files.json("metrics.json"), files.json("gate.json")
        if not all(isinstance(document, dict) for document in (spec, metrics, gate)):
            raise BundleError("stack.json, metrics.json and gate.json must hold objects")
        ensemble = Ensemble.load(files.files, spec)
        _consistent(files, spec, schema)
        _try_golden(ensemble, files.json("golden.json"))
        reference = Reference.parse(files.json("reference.json"))
        if reference.features.names != schema.names:
            raise BundleError("reference.json and schema.json list different features")
        return cls(files.hash, files.manifest, schema, ensemble, metrics, gate, reference)

    def forecast(self, x: NDArray[np.float32]) -> Forecast:
        """Return the forecasts of feature rows, float32 (n, d), in schema order; range in log space."""
        return self.ensemble.forecast(x)


def write_bundle(
    folder: Path,
    facts: Facts,
    *,
    spec: Spec,
    schema: Schema,
    graphs: Mapping[str, bytes],
    golden: NDArray[np.float32],
    metrics: Mapping[str, Any],
    gate: Mapping[str, Any],
    reference: Mapping[str, Any],
) -> Bundle:
    """Check that the parts fit each other, and write them; the same input gives the same bytes and hash.

    Parameters
    ----------
    graphs
        ONNX graphs by the names that `spec` gives them, ``<model>/<target>.onnx``.
    golden
        A few real feature rows, float32 (n, d), all finite; what they forecast here must come out wherever the
        bundle is loaded, to 1e-6.
    reference
        What `reference.build_reference` measured on the holdout.

    Raises
    ------
    BundleError
        The parts do not fit each other; `folder` is then as it was before.
    """
    for name, graph in graphs.items():
        _refuse_outside_data(name, graph)
    documents = {
        "stack.json": spec,
        "schema.json": schema.content(),
        "metrics.json": metrics,
        "gate.json": gate,
        "golden.json": _golden(Ensemble.load(graphs, spec), golden),
        "reference.json": reference,
    }
    files = dict(graphs)
    for name, document in documents.items():
        try:
            files[name] = canonical(document, dense=document is reference)
        except ValueError as error:
            raise BundleError(f"{name} must hold finite numbers only: {error}") from None
    verified = seal(facts, schema.hash, files)
    bundle = Bundle.open(verified)
    verified.write(folder)
    return bundle


def members(spec: Spec) -> list[str]:
    """Return the names of the graphs that an ensemble's specification refers to, sorted."""
    parts: Iterable[Mapping[str, Any]] = spec["targets"].values()
    return sorted({str(member["file"]) for part in parts for member in part["members"].values()})


def _schema(files: Verified) -> Schema:
    raw = files.json("schema.json")
    try:
        return Schema.of(raw)
    except (KeyError, TypeError):
        raise BundleError("schema.json must hold market, names and hash") from None


def _consistent(files: Verified, spec: Spec, schema: Schema) -> None:
    manifest = files.manifest
    claimed = {"stack.json": str(spec["schema"].get("hash")), MANIFEST: manifest.schema_hash}
    for name, value in claimed.items():
        if value != schema.hash:
            raise BundleError(f"{name} has feature schema {value[:12]}, schema.json has {schema.hash[:12]}")
    if tuple(spec["schema"]["names"]) != schema.names:
        raise BundleError("stack.json and schema.json list different features")
    if {manifest.market, spec.get("market")} != {schema.market}:
        raise BundleError(f"{MANIFEST}, stack.json and schema.json must name one market, got {manifest.market!r}")
    if unused := set(manifest.files) - set(DOCUMENTS) - set(members(spec)):
        raise BundleError(f"{sorted(unused)[0]} is not part of the ensemble")


def _golden(ensemble: Ensemble, rows: NDArray[np.float32]) -> dict[str, Any]:
    if not len(rows) or not np.isfinite(rows).all():
        raise BundleError(f"golden rows must be finite and at least one, got {len(rows)}")
    forecast = ensemble.forecast(rows)
    expected = {name: getattr(forecast, name).tolist() for name in FORECASTS}
    return {"features": [[float(value) for value in row] for row in rows], "forecast": expected}


def _try_golden(ensemble: Ensemble, golden: Any) -> None:
    try:
        rows = np.asarray(golden["features"], dtype=np.float32)
        expected = {name: np.asarray(golden["forecast"][name], dtype=np.float64) for name in FORECASTS}
        forecast = ensemble.forecast(rows)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden.json is malformed: {type(error).__name__} {error}") from None
    if not len(rows):
        raise BundleError("golden.json holds no rows")
    for name in FORECASTS:
        got = getattr(forecast, name)
        if expected[name].shape != got.shape or not (difference := abs(got - expected[name])).max() <= TOLERANCE:
            shown = "another number of rows" if expected[name].shape != got.shape else f"{difference.max():.3g}"
            raise BundleError(f"golden.json: {name} differs by {shown}, allowed is {TOLERANCE}")


def _refuse_outside_data(name: str, graph: bytes) -> None:
    """Refuse a graph that would read another file when it is opened."""
    import onnx

    try:
        model = onnx.load_from_string(graph)
    except Exception as error:  # protobuf's DecodeError is not part of onnx's interface
        raise BundleError(f"{name} is not an ONNX graph: {type(error).__name__}") from None
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleError(f"{name} keeps its weights in another file, a bundle's graphs hold their own")
