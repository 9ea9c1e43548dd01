"""The models: one module each, found by discovery, so that a new file here is a new model.

A module's heavy library is imported only when that model is opened.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

from tradeloop.errors import ModelError
from tradeloop.models.base import Model

_INFRASTRUCTURE = ("base", "onnx")


def available() -> list[str]:
    """Return the names of all models, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_") and name not in _INFRASTRUCTURE)


def open_model(name: str) -> type[Model[Any]]:
    """Return the model class that the module `name` defines.

    Raises
    ------
    ModelError
        If there is no such model, with the names there are.
    """
    if name not in available():
        raise ModelError(f"model must be one of {available()}, got {name!r}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Model) and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ModelError(f"{module.__name__} must define exactly one Model, it defines {len(found)}")
    return found[0]
