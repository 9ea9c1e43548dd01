"""Building the Bento: the service, the code that it imports, the parameters and one bundle; nothing else."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tradeloop.bundle_store import BundleStore, bentoml_home, install, lock_of
from tradeloop.config import Params
from tradeloop.errors import BundleError, StoreError
from tradeloop.layout import Layout
from tradeloop.manifest import verify
from tradeloop.state.feast_repo import file_lock

SERVICE = "bentos/service.py"
REQUIREMENTS = "bentos/requirements.txt"
BAKED = "bundle"
"""Folder of the Bento's own bundle, which serves until a registry names a champion."""

_PACKAGES = ("tradeloop", "bentos")
_MODULE = re.compile(r"(?:tradeloop|bentos)(?:\.\w+)+")
_MARK = "content"


def build_bento(layout: Layout, params: Params, bundle_hash: str) -> str:
    """Build the Bento of a stored bundle and return its tag; one with the same content is left as it is.

    Raises
    ------
    StoreError
        The service, its requirements or the bundle are not there, or BentoML refuses.
    """
    store = BundleStore(layout, params)
    tag = store.tag(bundle_hash)
    try:
        bundle = verify(store.folder(bundle_hash), expect=bundle_hash).files
    except BundleError as error:
        raise StoreError(f"a Bento is built from a stored bundle only: {error}") from None
    content = {name: (layout.root / name).read_bytes() for name in included(layout.root)}
    content |= {f"{BAKED}/{name}": body for name, body in bundle.items()}
    mark = _digest(content)
    folder = store.bento_folder(bundle_hash)
    with file_lock(lock_of(layout, "bentos")):
        if not _is_built(folder, content, mark):
            with bentoml_home(layout, "bentos") as staging:
                _build(staging, content, tag=tag, labels={"market": params.market, _MARK: mark})
                install(staging / "bentos" / store.name, folder.parent, folder.name)
    return tag


def included(root: Path) -> list[str]:
    """Return the files that the service needs, relative to `root`: those it imports, directly or not, and its settings.

    Raises
    ------
    StoreError
        The service or its requirements are missing.
    """
    for name in (SERVICE, REQUIREMENTS):
        if not (root / name).is_file():
            raise StoreError(f"{root / name} is missing: there is no service to build")
    seen: set[str] = set()
    pending = [SERVICE]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += _imports(root, name)
    return sorted(seen | {REQUIREMENTS, "params.yaml"})


def _imports(root: Path, name: str) -> list[str]:
    """Return the project's own files that a module imports anywhere in it, with the packages that hold them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((root / name).read_bytes(), filename=name)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
            names.add(node.value)  # Feast is told by name which of our classes to use
    found = []
    for module in names:
        parts = module.split(".")
        if parts[0] in _PACKAGES:
            paths = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
            candidates = [f"{path}/__init__.py" for path in paths] + [f"{path}.py" for path in paths]
            found += [candidate for candidate in candidates if (root / candidate).is_file()]
    return found


def _digest(content: Mapping[str, bytes]) -> str:
    """Return a hash over all that the Bento is made of; a label holds at most 63 digits of it."""
    parts = {name: hashlib.sha256(body).hexdigest() for name, body in content.items()}
    made_of = {"files": parts, "bentoml": version("bentoml")}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:63]


def _is_built(folder: Path, content: Mapping[str, bytes], mark: str) -> bool:
    """Return whether a Bento of this content lies in `folder`, unchanged."""
    try:
        if f"{_MARK}: {mark}" not in (folder / "bento.yaml").read_text(encoding="utf-8"):
            return False
        return all((folder / "src" / name).read_bytes() == body for name, body in content.items())
    except OSError:
        return False


def _build(staging: Path, content: Mapping[str, bytes], *, tag: str, labels: Mapping[str, str]) -> None:
    """Build into ``staging/bentos``, from a copy of the files: BentoML walks through all of its context."""
    import bentoml
    from bentoml._internal.bento import BentoStore
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml.exceptions import BentoMLException

    name, release = tag.split(":")
    context = staging / "context"
    for path, body in content.items():
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_bytes(body)
    (staging / "tmp").mkdir()
    try:
        with BentoMLContainer.tmp_bento_store_dir.patch(str(staging / "tmp")):
            bentoml.bentos.build(
                SERVICE.removesuffix(".py").replace("/", "."),
                name=name,
                version=release,
                description=f"tradeloop's prediction service with model {release}.",
                labels=dict(labels),
                include=sorted(content),
                python={"requirements_txt": REQUIREMENTS, "lock_packages": False},
                docker={"python_version": "3.11"},
                build_ctx=str(context),
                _bento_store=BentoStore(staging / "bentos"),
            )
    except (BentoMLException, OSError) as error:
        raise StoreError(f"the Bento cannot be built: {' '.join(str(error).split())}") from error
