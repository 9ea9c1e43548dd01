"""Files that are whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def _replace(path: Path, write: Callable[[Path], None], *, flush: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        if flush:
            with beside.open("rb") as written:
                os.fsync(written.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if not flush:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write `content` to `path` so that a crash leaves the old file or the new one, never a part.

    Parameters
    ----------
    flush
        Let it reach the disk before this returns. Without it a power failure may leave a part: for files whose digest
        is known elsewhere.
    """

    def write(beside: Path) -> None:
        beside.write_bytes(content)

    _replace(path, write, flush=flush)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON with sorted keys; NaN and infinities are refused (ValueError)."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` without its index; the same frame gives the same bytes."""
    _replace(path, lambda beside: frame.to_parquet(beside, index=False, compression="zstd"))


def write_parquets(folder: Path, frames: Mapping[str, pd.DataFrame]) -> None:
    """Write ``<folder>/<name>.parquet`` for each frame; afterwards no other parquet file is left in `folder`."""
    for name, frame in frames.items():
        write_parquet(folder / f"{name}.parquet", frame)
    for path in folder.glob("*.parquet"):
        if path.stem not in frames:
            path.unlink()
