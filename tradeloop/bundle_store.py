"""Bundles in BentoML's model store, under the tag ``<package>_<market>:<first 12 digits of the hash>``.

BentoML copies models and Bentos into place file by file, which a crash can interrupt; so both are made in a folder
beside the store and moved in whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradeloop.atomic import write_bytes
from tradeloop.bundle import VERSION_LENGTH, Bundle
from tradeloop.config import Params
from tradeloop.errors import BundleError
from tradeloop.layout import Layout
from tradeloop.manifest import Verified, verify
from tradeloop.state.feast_repo import file_lock

_FOLDER = "bundle"


class BundleStore:
    """The bundles that may serve. Reading needs no BentoML; any number of processes may share the store."""

    def __init__(self, layout: Layout, params: Params) -> None:
        self.name = f"{params.package.name}_{params.market}"
        self._layout = layout
        self._models = layout.bentoml / "models" / self.name

    def tag(self, bundle_hash: str) -> str:
        """Return the BentoML tag of a bundle."""
        return f"{self.name}:{bundle_hash[:VERSION_LENGTH]}"

    def folder(self, bundle_hash: str) -> Path:
        """Return where a bundle lies, or would lie, in the model store."""
        return self._models / bundle_hash[:VERSION_LENGTH] / _FOLDER

    def has(self, bundle_hash: str) -> bool:
        """Return whether the store has the bundle, whole and unchanged."""
        try:
            verify(self.folder(bundle_hash), expect=bundle_hash)
        except BundleError:
            return False
        return True

    def get(self, bundle_hash: str) -> Bundle:
        """Verify and open a bundle.

        One that the store lost altogether is taken from the pipeline's last output if it is that very bundle.

        Raises
        ------
        BundleError
            It is nowhere, or not as it was packaged; nothing of it was used.
        """
        folder = self.folder(bundle_hash)
        if not folder.parent.exists():
            self.restore(bundle_hash)
        return Bundle.load(folder, expect=bundle_hash)

    def put(self, files: Verified) -> str:
        """Store a bundle and return its tag; what an interrupted attempt left, or someone edited, is replaced."""
        tag = self.tag(files.hash)
        with file_lock(self._layout.bentoml / ".lock"):
            described = (self.folder(files.hash).parent / "model.yaml").is_file()
            if not (described and self.has(files.hash)):
                with bentoml_home(self._layout) as staging:
                    self._make(files, staging)
                    install(staging / self.name, self._models, files.hash[:VERSION_LENGTH])
        return tag

    def restore(self, bundle_hash: str) -> None:
        """Put the pipeline's last bundle into the store; raise BundleError unless it is the one asked for."""
        output = self._layout.models / _FOLDER
        try:
            files = verify(output, expect=bundle_hash)
        except BundleError:
            where = f"{self._models.parent} and {output}"
            raise BundleError(
                f"bundle {bundle_hash[:VERSION_LENGTH]} is neither in {where}: package it again"
            ) from None
        self.put(files)

    def _make(self, files: Verified, staging: Path) -> None:
        import bentoml
        from bentoml._internal.models import ModelStore

        labels = {"market": files.manifest.market, "bundle": files.hash[:63]}
        staged = ModelStore(staging)
        with bentoml.models.create(self.tag(files.hash), labels=labels, _model_store=staged) as model:
            files.write(Path(model.path_of(_FOLDER)))


@contextmanager
def bentoml_home(layout: Layout) -> Iterator[Path]:
    """Make BentoML use `layout`'s home, and yield an empty folder on the same file system to make new items in.

    BentoML itself reads its home from the environment, once a process.
    """
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    home = layout.bentoml
    temporary = home / "tmp"
    for folder in (home / "models", home / "bentos", temporary):
        folder.mkdir(parents=True, exist_ok=True)
    for leftover in temporary.glob("staging.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="staging.", dir=temporary) as name:
        store = ModelStore(home / "models")
        with BentoMLContainer.bentoml_home.patch(str(home)), BentoMLContainer.model_store.patch(store):
            yield Path(name)


def install(staged: Path, store: Path, version: str) -> None:
    """Move a finished item from the staging folder into the store and make it BentoML's ``latest``."""
    _flush(staged / version)
    store.mkdir(parents=True, exist_ok=True)
    target = store / version
    if target.exists():
        target.rename(staged / f"{version}.replaced")
    (staged / version).rename(target)
    write_bytes(store / "latest", version.encode())


def _flush(folder: Path) -> None:
    """Make sure that what will be renamed is on disk."""
    for path in [folder, *folder.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
