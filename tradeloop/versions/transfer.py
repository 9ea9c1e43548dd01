"""A version as one file: its bundle, its Bento if there is one, and what the registry says of it.

The file is a plain tar. Its first member, ``export.json``, names every other one with size and SHA-256; the bundle
proves itself by its own manifest. Nothing in it is executed on the way in. Those hashes show damage, not intent: a
Bento holds the service's code, which runs once somebody serves it, so a file from elsewhere is imported by the SHA-256
that its sender names.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradeloop.atomic import write_bytes
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore, bentoml_home, install, lock_of
from tradeloop.config import Params
from tradeloop.errors import BundleError
from tradeloop.layout import Layout
from tradeloop.lifecycle import ModelRecord
from tradeloop.manifest import Verified, canonical, parse_json, place, verify
from tradeloop.promotion import promotion_evidence
from tradeloop.registry import Registry
from tradeloop.state.feast_repo import file_lock
from tradeloop.version_facts import VersionFacts

FORMAT = 1
INDEX = "export.json"

_LIMIT = 1 << 30
_NAME = re.compile(r"(?:bundle|bento)(?:/[A-Za-z0-9_.-]+)+")


@dataclass(frozen=True)
class Imported:
    """What an import left: the version as it is registered here, and whether the file brought a Bento."""

    record: ModelRecord
    bento: bool


def export(registry: Registry, store: BundleStore, name: str, target: Path) -> str:
    """Write the version that `name` means to `target`, and return the SHA-256 of that file.

    Raises
    ------
    RegistryError, BundleError
        The name means no version or several; its bundle is not in the store, or damaged.
    """
    record = registry.find(name)
    bundle = verify(store.folder(record.hash), expect=record.hash)
    content = {f"bundle/{path}": body for path, body in bundle.files.items()}
    content |= {f"bento/{path}": body for path, body in _bento(store, record.hash).items()}
    index = {
        "format": FORMAT,
        "market": bundle.manifest.market,
        "store": store.name,
        "hash": record.hash,
        "record": record.to_dict(),
        "events": [event.to_dict() for event in registry.events() if event.model == record.hash],
        "files": {path: _entry(body) for path, body in sorted(content.items())},
    }
    packed = _pack({INDEX: canonical(index), **content})
    write_bytes(target, packed)
    return hashlib.sha256(packed).hexdigest()


def bring_in(
    registry: Registry,
    layout: Layout,
    params: Params,
    source: Path,
    *,
    actor: str,
    sha256: str | None = None,
) -> Imported:
    """Store and register the version in a file that `export` wrote; doing so again changes nothing.

    It is registered in ``validation``, whatever it was where it came from, but for one that was quarantined there, or
    that failed its gate: that stays quarantined. One that is archived here leaves the archive.

    Parameters
    ----------
    sha256
        What the file must hash to, if its sender said so.

    Raises
    ------
    BundleError
        The file is damaged, of another market, or not such a file; nothing was stored.
    """
    index, content = _unpack(source, sha256)
    store = BundleStore(layout, params)
    if (index["market"], index["store"]) != (params.market, store.name):
        raise BundleError(f"{source} belongs to {index['store']}, the models of this project to {store.name}")
    with tempfile.TemporaryDirectory() as folder:
        place(Path(folder) / "bundle", _below("bundle", content))
        files = verify(Path(folder) / "bundle", expect=str(index["hash"]))
    bundle = Bundle.open(files)
    if bundle.manifest.market != params.market:
        raise BundleError(f"{source}: the bundle is of market {bundle.manifest.market}, not {params.market}")
    bento = _below("bento", content)
    _require_same_bundle(source, files, bento)
    store.put(files)
    if bento:
        _install_bento(layout, store, files.hash, bento)
    return Imported(_register(registry, bundle, index, actor=actor), bool(bento))


def _register(registry: Registry, bundle: Bundle, index: Mapping[str, Any], *, actor: str) -> ModelRecord:
    there = index["record"]
    withdrawn = "quarantined" in (there.get("state"), there.get("before"))
    reason = f"imported; it was {there.get('state')} there: {there.get('reason')}"
    record = registry.register(
        bundle.hash,
        version=bundle.version,
        actor=actor,
        reason=reason,
        evidence={**promotion_evidence(bundle), "imported": {name: index.get(name) for name in ("record", "events")}},
        passed=bundle.passed and not withdrawn,
        facts=VersionFacts.of(bundle),
    )
    if record.state == "archived":
        record = registry.unarchive(bundle.hash, actor=actor, reason=reason).record
    return record


def _bento(store: BundleStore, bundle_hash: str) -> dict[str, bytes]:
    folder = store.bento_folder(bundle_hash)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _install_bento(layout: Layout, store: BundleStore, bundle_hash: str, content: Mapping[str, bytes]) -> None:
    target = store.bento_folder(bundle_hash)
    with file_lock(lock_of(layout, "bentos")):
        if not target.exists():
            with bentoml_home(layout, "bentos") as staging:
                place(staging / target.name, content)
                install(staging, target.parent, target.name)


def _require_same_bundle(source: Path, files: Verified, bento: Mapping[str, bytes]) -> None:
    """Refuse a Bento that would serve another bundle than the one it comes with."""
    carried = _below("src/bundle", bento)
    if bento and carried != dict(files.files):
        raise BundleError(f"{source}: the Bento carries another bundle than {files.hash[:12]}")


def _below(folder: str, content: Mapping[str, bytes]) -> dict[str, bytes]:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): body for name, body in content.items() if name.startswith(prefix)}


def _entry(body: bytes) -> dict[str, Any]:
    return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def _pack(content: Mapping[str, bytes]) -> bytes:
    """Return a tar whose bytes follow from its content alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, body in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return buffer.getvalue()


def _unpack(source: Path, sha256: str | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the index and the files that it names, each checked; nothing is written."""
    try:
        if source.stat().st_size > _LIMIT:
            raise BundleError(f"{source} is larger than the {_LIMIT >> 20} MiB that an export may have")
        packed = source.read_bytes()
    except OSError as error:
        raise BundleError(f"{source} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(packed).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise BundleError(f"{source} has the SHA-256 {found}, expected {sha256}")
    members = _members(source, packed)
    if INDEX not in members:
        raise BundleError(f"{source} is no export of a version: it has no {INDEX}")
    index = parse_json(INDEX, members.pop(INDEX))
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise BundleError(f"{source}: this code reads exports of format {FORMAT}")
    if missing := {"market", "store", "hash", "record", "files"} - set(index):
        raise BundleError(f"{source}: {INDEX} lacks {sorted(missing)}")
    if not (isinstance(index["files"], dict) and isinstance(index["record"], dict)):
        raise BundleError(f"{source}: {INDEX} must hold objects in files and record")
    if set(members) != set(index["files"]):
        odd = sorted(set(members) ^ set(index["files"]))[0]
        raise BundleError(f"{source}: {odd} is in the file or in its index, but not in both")
    for name, body in members.items():
        if _entry(body) != index["files"][name]:
            raise BundleError(f"{source}: {name} is not what the index says: it was damaged")
    return index, members


def _members(source: Path, packed: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            for member in tar:
                proper = member.name == INDEX or _NAME.fullmatch(member.name)
                if not member.isreg() or not proper or ".." in member.name.split("/") or member.name in members:
                    raise BundleError(f"{source}: {member.name!r} is not a plain file below bundle/ or bento/")
                extracted = tar.extractfile(member)
                members[member.name] = extracted.read() if extracted else b""
    except (tarfile.TarError, EOFError) as error:
        raise BundleError(f"{source} is no tar that can be read: {error}") from None
    return members
