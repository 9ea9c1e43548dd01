"""Put on PYTHONPATH, it notes which parameters a process reads: one file a process in $TRADELOOP_TRACE."""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

from tradeloop.config import base, params

_read: set[tuple[str, str]] = set()
_watched: dict[int, Any] = {}  # the blocks of what was loaded, kept alive so that no id is used twice
_get, _load, _dump = base.Block.__getattribute__, params.load_params, base.Block.model_dump


def _noting(block: Any, name: str) -> Any:
    if id(block) in _watched and name in type(block).model_fields:
        _read.add((type(block).__name__, name))
    return _get(block, name)


def _dumping(block: Any, **options: Any) -> Any:
    if id(block) in _watched:
        _read.update((type(block).__name__, name) for name in type(block).model_fields)
    return _dump(block, **options)


def _watch(block: Any) -> None:
    for name in type(block).model_fields:
        value = _get(block, name)
        for inner in value.values() if isinstance(value, dict) else [value]:
            if isinstance(inner, base.Block):
                _watch(inner)
    _watched[id(block)] = block


def _loading(path: Path) -> Any:
    found = _load(path)
    _watch(found)  # from here on: what validation itself looks at does not count
    return found


def _write() -> None:
    command = " ".join(sys.orig_argv)
    if _read and "stages." in command:
        name = command.split("stages.")[1].replace(" ", "@")
        (Path(os.environ["TRADELOOP_TRACE"]) / f"{name}.json").write_text(json.dumps(sorted(_read)))


if "TRADELOOP_TRACE" in os.environ:
    base.Block.__getattribute__ = _noting  # type: ignore[method-assign]  # this is what tracing is
    base.Block.model_dump = _dumping  # type: ignore[method-assign]
    params.load_params = _loading
    sys.modules["tradeloop.config"].load_params = _loading  # type: ignore[attr-defined]
    atexit.register(_write)
