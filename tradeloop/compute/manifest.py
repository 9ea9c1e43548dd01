"""What a symbol's parts were made from: ``<symbol>/manifest.json``, written after them.

A part is as it should be if it was made by the same recipe from the same bars, and its file is the one that was
written. So a run that was killed, a file that was lost or edited, and a checkout of other data are all found, and
nothing else is computed again. The manifest says nothing of when or in which order: a folder that was kept up month by
month is the same, byte for byte, as one computed from nothing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tradeloop.atomic import write_json
from tradeloop.bars import Bars
from tradeloop.features.engine import syntax_hash
from tradeloop.schema import Schema

NAME = "manifest.json"
# What decides a file's bytes beside the bars and the families' code, which the schema's hash covers.
_CODE = ("tradeloop.features.engine", "tradeloop.calendars", "tradeloop.compute.rows")
_PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "TA-Lib", "exchange-calendars", "arch", "hmmlearn", "pyarrow")


@dataclass(frozen=True)
class Made:
    """One part: the digest of what it was computed from, and that of its file."""

    source: str
    file: str


@dataclass(frozen=True)
class Manifest:
    """How a symbol's parts were made; `parts` by name."""

    recipe: str
    parts: Mapping[str, Made]

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read what `save` wrote; an empty one if there is none, or it is not readable."""
        try:
            content = json.loads((folder / NAME).read_text(encoding="utf-8"))
            return cls(str(content["recipe"]), {name: Made(**made) for name, made in content["parts"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls("", {})

    def save(self, folder: Path) -> None:
        """Write as JSON."""
        made = {name: {"source": part.source, "file": part.file} for name, part in self.parts.items()}
        write_json(folder / NAME, {"recipe": self.recipe, "parts": made})

    def holds(self, folder: Path, name: str, *, recipe: str, source: str) -> bool:
        """Return whether a part's file is there, whole, and made by `recipe` from `source`."""
        made = self.parts.get(name)
        if made is None or self.recipe != recipe or made.source != source:
            return False
        try:
            with (folder / f"{name}.parquet").open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == made.file
        except OSError:
            return False


def recipe(schema: Schema) -> str:
    """Return a digest of how rows are made of bars: the schema, the engine's code, the libraries' versions."""
    content = {"schema": schema.content(), "code": _code(), "versions": _versions()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code() -> dict[str, str]:
    return {name: syntax_hash(inspect.getsource(importlib.import_module(name))) for name in _CODE}


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def source_digest(bars: Bars) -> str:
    """Return a digest of all that a function of these bars can read."""
    columns = {
        "timestamp": bars.timestamp.astype("datetime64[us]"),
        **{name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")},
        **{f"context {name}": values for name, values in bars.context.items()},
        **{f"input {name}": values for name, values in bars.inputs.items()},
    }
    digest = hashlib.sha256(json.dumps([bars.symbol, len(bars), list(columns)]).encode())
    for values in columns.values():
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()
