"""A bundle's folder: its manifest, and the check that stands between files on a disk and a loaded model.

The folder holds JSON and ONNX graphs, nothing that can execute. `manifest.json` names every other file with its
SHA-256; the bundle's hash is the SHA-256 of the manifest, so it stands for all content.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, ValidationError

from tradeloop.config import Block, Labels, Target
from tradeloop.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
DOCUMENTS = ("stack.json", "schema.json", "metrics.json", "gate.json", "golden.json", "reference.json")

_MANIFEST_LIMIT = 256 * 1024
_FILE_LIMIT = 512 * 1024 * 1024
_NAME = re.compile(r"[a-z0-9_]{1,64}\.json|[a-z0-9_]{1,64}/[a-z0-9_]{1,64}\.onnx")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Block):
    """Size in bytes and SHA-256 of one file."""

    size: Annotated[int, Field(ge=0, le=_FILE_LIMIT)]
    sha256: Digest


class Thresholds(Block):
    """When a forecast is worth a trade: distance of p from one half, cost one way, edge to keep after costs."""

    probability: Annotated[float, Field(ge=0, lt=0.5)]
    cost_bps: Annotated[float, Field(ge=0)]
    min_edge_bps: Annotated[float, Field(ge=0)]


class Facts(Block):
    """What a bundle says about where it comes from and how it may be used.

    Attributes
    ----------
    data_hash
        SHA-256 of what the training matrix holds.
    train_end
        Feature time of the last row that trained, UTC.
    git_revision, git_dirty
        Last commit that touched code or parameters, and whether they differed from it; ``unknown`` outside git.
    edge_proven
        Which targets beat chance and baseline on the holdout; the others are information only.
    """

    name: str
    market: str
    symbols: Annotated[list[str], Field(min_length=1)]
    data_hash: Digest
    train_end: datetime
    git_revision: str
    git_dirty: bool
    labels: Labels
    thresholds: Thresholds
    edge_proven: dict[Target, bool]
    versions: dict[str, str]


class Manifest(Facts):
    """The content of manifest.json."""

    format: Literal[1]
    schema_hash: str
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Verified:
    """A bundle's files, read once and found to be those of the manifest."""

    hash: str
    manifest: Manifest
    files: Mapping[str, bytes]

    def json(self, name: str) -> Any:
        """Return a JSON file's content."""
        return parse_json(name, self.files[name])

    def write(self, folder: Path) -> None:
        """Write the same files to `folder`: it appears whole, or not at all."""
        place(folder, self.files)


def canonical(content: Any, *, dense: bool = False) -> bytes:
    """Return the one JSON text of `content`, without white space if `dense`; ValueError if a number is not finite."""
    layout: dict[str, Any] = {"separators": (",", ":")} if dense else {"indent": 2}
    text = json.dumps(content, **layout, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def parse_json(name: str, content: bytes) -> Any:
    """Return parsed JSON; a BundleError names the file if it is malformed or holds NaN or an infinity."""

    def refuse(constant: str) -> NoReturn:
        raise BundleError(f"{name}: numbers must be finite, got {constant}")

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(text)

    try:
        return json.loads(content, parse_constant=refuse, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not valid JSON: {' '.join(str(error).split())}") from None


def seal(facts: Facts, schema_hash: str, files: Mapping[str, bytes]) -> Verified:
    """Return `files` with the manifest over them."""
    entries = {name: {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in files.items()}
    content = {**facts.model_dump(mode="json"), "format": FORMAT, "schema_hash": schema_hash, "files": entries}
    sealed = canonical(content)
    return Verified(hashlib.sha256(sealed).hexdigest(), _parse_manifest(sealed), {**files, MANIFEST: sealed})


def verify(folder: Path, *, expect: str | None = None) -> Verified:
    """Read every file of a bundle once and check it against the manifest.

    Parameters
    ----------
    expect
        The bundle hash that must come out.

    Raises
    ------
    BundleError
        Names the file and the rule: missing, extra, edited or truncated files, links, unknown formats, names that
        lead elsewhere.
    """
    present = _listing(folder)
    if MANIFEST not in present:
        raise BundleError(f"bundle {folder} has no {MANIFEST}")
    sealed = _read(folder, MANIFEST, _MANIFEST_LIMIT)
    found = hashlib.sha256(sealed).hexdigest()
    if expect is not None and found != expect:
        raise BundleError(f"{MANIFEST} is that of bundle {found[:12]}, expected {expect[:12]}: it was edited")
    manifest = _parse_manifest(sealed)
    _same_names(present - {MANIFEST}, set(manifest.files))
    files = {MANIFEST: sealed}
    for name, entry in manifest.files.items():
        body = _read(folder, name, entry.size)
        if len(body) != entry.size:
            raise BundleError(f"{name} has {len(body)} bytes, the manifest says {entry.size}: it was truncated")
        if hashlib.sha256(body).hexdigest() != entry.sha256:
            raise BundleError(f"{name} does not have the manifest's SHA-256: it was edited")
        files[name] = body
    return Verified(found, manifest, files)


def place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` beside `folder`, flush them to disk, and rename; what stood there before is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    for leftover in folder.parent.glob(f"{prefix}*.partial"):
        shutil.rmtree(leftover)
    beside = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=folder.parent))
    try:
        for name, body in files.items():
            path = beside / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
        for path in [beside / "new", *(p for p in (beside / "new").rglob("*") if p.is_dir())]:
            _flush_folder(path)
        if folder.exists():
            folder.rename(beside / "old")
        (beside / "new").rename(folder)
        _flush_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse_manifest(sealed: bytes) -> Manifest:
    raw = parse_json(MANIFEST, sealed)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        given = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleError(f"{MANIFEST}: this code reads bundles of format {FORMAT}, got {given!r}")
    if canonical(raw) != sealed:
        raise BundleError(f"{MANIFEST} is not in its canonical form: it was edited")
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{MANIFEST}: {where}: {first['msg']}") from None
    for name in manifest.files:
        if not _NAME.fullmatch(name):
            raise BundleError(f"{MANIFEST} names {name!r}: a file is <name>.json or <model>/<target>.onnx")
    if missing := set(DOCUMENTS) - set(manifest.files):
        raise BundleError(f"{MANIFEST} lacks {sorted(missing)}")
    return manifest


def _listing(folder: Path) -> set[str]:
    """Return the names of all files below `folder`; a link or a special file is refused."""
    names: set[str] = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            raise BundleError(f"bundle {folder} cannot be read: {error.strerror} ({current})") from None
        for entry in entries:
            name = Path(entry.path).relative_to(folder).as_posix()
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                names.add(name)
            else:
                raise BundleError(f"{name} is a link or a special file: a bundle holds plain files only")
    return names


def _same_names(present: set[str], named: set[str]) -> None:
    if missing := sorted(named - present):
        raise BundleError(f"{missing[0]} is missing from the bundle")
    if extra := sorted(present - named):
        raise BundleError(f"{extra[0]} is in the bundle, but the manifest does not name it")


def _read(folder: Path, name: str, limit: int) -> bytes:
    """Return at most `limit` + 1 bytes of a plain file, without following a link put in its place."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"{name} is not a plain file")
            body = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}") from None
    if len(body) > limit:
        raise BundleError(f"{name} is larger than the {limit} bytes that it may have")
    return body
