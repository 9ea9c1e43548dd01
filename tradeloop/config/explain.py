"""What is wrong with params.yaml, in one line that names the key, the value and the rule."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def nearest(key: str, known: list[str]) -> str:
    """Return a question that suggests the known key nearest to `key`, or nothing."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _known_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the keys that the block at `location` knows."""
    block: Any = model
    for part in location:
        if isinstance(block, type) and issubclass(block, BaseModel):
            field = block.model_fields.get(str(part))
            block = field.annotation if field else None
        elif block is not None:
            block = next((a for a in get_args(block) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if block is not None and not isinstance(block, type):
            inner = [a for a in get_args(block) if isinstance(a, type) and issubclass(a, BaseModel)]
            block = inner[0] if len(inner) == 1 and type(None) in get_args(block) else block
    return list(block.model_fields) if isinstance(block, type) and issubclass(block, BaseModel) else []


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line for the first problem, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _known_keys(model, first["loc"][:-1])
        text = f"unknown key {where!r}{nearest(key, known)} (known: {', '.join(known)})"
    elif first["type"] == "value_error":
        text = f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    else:
        text = f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"
        if first["type"] != "missing":
            text += f", got {first['input']!r}"
    more = len(problems) - 1
    return text + (f" (and {more} more)" if more else "")
