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
from typing import Literal

from tradeloop.atomic import write_bytes
from tradeloop.bundle import VERSION_LENGTH, Bundle
from tradeloop.config import Params
from tradeloop.errors import BundleError
from tradeloop.layout import Layout
from tradeloop.manifest import Verified, verify
from tradeloop.state.feast_repo import file_lock

Kind = Literal["models", "bentos"]

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

    def bento_folder(self, bundle_hash: str) -> Path:
        """Return where a bundle's Bento lies, or would lie."""
        return self._layout.bentoml / "bentos" / self.name / bundle_hash[:VERSION_LENGTH]

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
        with file_lock(lock_of(self._layout, "models")):
            described = (self.folder(files.hash).parent / "model.yaml").is_file()
            if not (described and self.has(files.hash)):
                with bentoml_home(self._layout, "models") as staging:
                    self._make(files, staging)
                    install(staging / self.name, self._models, files.hash[:VERSION_LENGTH])
        return tag

    def size(self, bundle_hash: str) -> int:
        """Return how many bytes a bundle and its Bento take in the store."""
        folders = (self.folder(bundle_hash).parent, self.bento_folder(bundle_hash))
        return sum(path.lstat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def delete(self, bundle_hash: str) -> None:
        """Delete a bundle and its Bento; each is gone at once, whole. What is not there is no error."""
        items: tuple[tuple[Kind, Path], ...] = (
            ("bentos", self.bento_folder(bundle_hash)),
            ("models", self.folder(bundle_hash).parent),
        )
        for kind, folder in items:
            with file_lock(lock_of(self._layout, kind)):
                remove(folder, beside=self._layout.bentoml / "tmp" / f"staging-{kind}.deleted")

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


def lock_of(layout: Layout, kind: Kind) -> Path:
    """Return the file to lock while models, or Bentos, are made or deleted."""
    return layout.bentoml / {"models": ".lock", "bentos": ".bentos.lock"}[kind]


@contextmanager
def bentoml_home(layout: Layout, kind: Kind) -> Iterator[Path]:
    """Make BentoML use `layout`'s home, and yield an empty folder on the same file system to make new items in.

    Whoever holds the lock of a kind clears away what a crash left of that kind. BentoML itself reads its home from the
    environment, once a process.
    """
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    home = layout.bentoml
    temporary = home / "tmp"
    for folder in (home / "models", home / "bentos", temporary):
        folder.mkdir(parents=True, exist_ok=True)
    for leftover in temporary.glob(f"staging-{kind}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"staging-{kind}.", dir=temporary) as name:
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


def remove(item: Path, *, beside: Path) -> None:
    """Delete an item of BentoML's store by way of a name beside the store; the newest that is left is ``latest``."""
    shutil.rmtree(beside, ignore_errors=True)
    if item.exists():
        beside.parent.mkdir(parents=True, exist_ok=True)
        item.rename(beside)
    latest = item.parent / "latest"
    if latest.is_file() and latest.read_text(encoding="utf-8").strip() == item.name:
        left = sorted((other for other in item.parent.iterdir() if other.is_dir()), key=lambda o: o.stat().st_mtime)
        if left:
            write_bytes(latest, left[-1].name.encode())
        else:
            latest.unlink()
    shutil.rmtree(beside, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Make sure that what will be renamed is on disk."""
    for path in [folder, *folder.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
