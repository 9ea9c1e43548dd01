"""The compiler of the features' kernels: Numba, without any liberty about floating point.

Compiled code is kept in the user's cache (or below ``NUMBA_CACHE_DIR``), in a folder named by the kernels' source. So
only the first call on a machine waits for it, whichever clone of the project makes it: a retraining's workspace and a
test's copy find what is there. And a kernel is compiled again when any other changed: Numba by itself would go on with
the old code of a function in another file that it calls.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import caching

Function = TypeVar("Function", bound=Callable[..., Any])


def source_hash(folder: Path) -> str:
    """Return a SHA-256 over the names and contents of the modules in `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Return where the machine code of this source is kept; a temporary folder where the user's cache is read-only."""
    name = source_hash(Path(__file__).parent)[:32]
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "tradeloop" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"tradeloop-{os.getuid()}" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


class _BySource(caching._CacheLocator):  # type: ignore[misc]  # Numba has no types
    """Tells Numba where a kernel's machine code lies, and of which source it must be."""

    def __init__(self, file: str, line: int) -> None:
        self._file = Path(file)
        self._line = line

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return hashlib.sha256(self._file.read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _BySource:
        return cls(py_file, py_func.__code__.co_firstlineno)


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]  # Numba has no types
    _locator_classes = (_BySource,)


class _Cache(caching.FunctionCache):  # type: ignore[misc]  # Numba has no types
    _impl_class = _Implementation


def compiled(function: Function) -> Function:
    """Return `function` as machine code: no reordered sums, no fused operations, division by zero as NumPy has it.

    It may hold loops over bars. Arguments are contiguous arrays and numbers; the same source gives the same bits on any
    slice that holds what it reads. It runs without Python's lock, so symbols may be computed in threads.
    """
    kernel = numba.njit(nogil=True, error_model="numpy", fastmath=False)(function)
    kernel._cache = _Cache(function)
    result: Function = kernel
    return result
