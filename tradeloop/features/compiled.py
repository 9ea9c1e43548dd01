"""The compiler of the features' kernels: Numba, without any liberty about floating point.

Compiled code is kept beside the source (or where ``NUMBA_CACHE_DIR`` says), so that only the first call on a machine
waits for it; `warm` does that waiting beforehand, for an image or a service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return `function` as machine code: no reordered sums, no fused operations, division by zero as NumPy has it.

    It may hold loops over bars. Arguments are contiguous arrays and numbers; the same source gives the same bits on any
    slice that holds what it reads. It runs without Python's lock, so symbols may be computed in threads.
    """
    kernel: Function = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)(function)
    return kernel
