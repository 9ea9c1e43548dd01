"""Members that are not trained anew but taken from a bundle that has them: what a drift did not concern.

After a change in one target a retraining learns from the few rows since then. The other targets would lose by that:
they have years to learn from, and their members stand in the champion. What is kept forecasts here as it does there;
stack, calibration and intervals are fitted to it like to any other member.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.config import Keep, Params, Target
from tradeloop.dataset import Matrix
from tradeloop.errors import ModelError
from tradeloop.layout import Layout
from tradeloop.manifest import Verified, verify


class Kept:
    """The members of some targets of one bundle.

    Parameters
    ----------
    bundle, graphs
        The bundle, and its graphs by name, ``<model>/<target>.onnx``.

    Raises
    ------
    ModelError
        The bundle has another feature schema than `matrix`, or was trained on some of its rows: it would be judged on
        what it knows.
    """

    def __init__(self, bundle: Bundle, graphs: Mapping[str, bytes], keep: Keep, matrix: Matrix) -> None:
        if bundle.schema.hash != matrix.schema.hash:
            theirs, ours = bundle.schema.hash[:12], matrix.schema.hash[:12]
            raise ModelError(f"train.keep: bundle {bundle.version} has feature schema {theirs}, these rows have {ours}")
        trained = np.datetime64(bundle.manifest.train_end.astimezone(UTC).replace(tzinfo=None), "us")
        if len(matrix) and matrix.timestamp[0] <= trained:
            raise ModelError(
                f"train.keep: bundle {bundle.version} was trained on rows until {trained}, these begin at "
                f"{matrix.timestamp[0]}: set dataset.start behind it"
            )
        self._bundle = bundle
        self._graphs = graphs
        self._targets = frozenset(keep.targets)

    @classmethod
    def from_files(cls, files: Verified, keep: Keep, matrix: Matrix) -> Kept:
        """Return the members of a verified bundle."""
        graphs = {name: body for name, body in files.files.items() if name.endswith(".onnx")}
        return cls(Bundle.open(files), graphs, keep, matrix)

    def has(self, model: str, target: Target) -> bool:
        """Return whether the target is kept, and the bundle has this model's member of it."""
        return target in self._targets and f"{model}/{target}.onnx" in self._graphs

    def forecast(self, model: str, target: Target, x: NDArray[np.float32]) -> Floats:
        """Return what the member says of feature rows (n, d)."""
        return self._bundle.forecast(x).members[target][model]

    def graph(self, model: str, target: Target) -> bytes:
        """Return the member's graph."""
        return self._graphs[f"{model}/{target}.onnx"]


def open_kept(layout: Layout, params: Params, matrix: Matrix) -> Kept | None:
    """Return what ``train.keep`` names, from the store of bundles; None where nothing is kept.

    Raises
    ------
    BundleError, ModelError
        The bundle is nowhere or damaged, or may not be used for these rows.
    """
    keep = params.train.keep
    if keep.bundle is None or not keep.targets:
        return None
    folder = BundleStore(layout, params).folder(keep.bundle)
    return Kept.from_files(verify(folder, expect=keep.bundle), keep, matrix)
