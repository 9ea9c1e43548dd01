"""The feature schema: the ordered names of a feature row, and the hash that travels with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradeloop.atomic import write_json
from tradeloop.errors import SchemaMismatch


@dataclass(frozen=True)
class Schema:
    """Names of the features in order (all float32), and a hash over their definitions.

    Two rows may be compared only if their hashes are equal. `interval` is the bars', as params.yaml has it: what a
    feature of a higher timeframe is made from depends on it; `calendar` is the market's: when its sessions end.
    """

    market: str
    names: tuple[str, ...]
    hash: str
    interval: str = "1d"
    calendar: str = "24/7"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scalar_view(self) -> str:
        """Name of Feast's view with one column a feature."""
        return f"features_{self.market}_{self.hash[:12]}"

    @property
    def vector_view(self) -> str:
        """Name of Feast's view with the whole row as one array."""
        return f"vector_{self.market}_{self.hash[:12]}"

    def require(self, other: str, *, what: str) -> None:
        """Raise SchemaMismatch unless `other` is this schema's hash; `what` names its bearer."""
        if other != self.hash:
            raise SchemaMismatch(f"{what} has feature schema {other[:12]}, expected {self.hash[:12]}")

    def content(self) -> dict[str, Any]:
        """Return the schema as JSON has it; `of` reads it."""
        return {
            "market": self.market,
            "interval": self.interval,
            "calendar": self.calendar,
            "names": list(self.names),
            "hash": self.hash,
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Schema:
        """Return the schema that `content` describes; one without interval or calendar is from before they counted.

        Raises
        ------
        KeyError
            It is not a schema.
        """
        names = tuple(str(name) for name in content["names"])
        interval, calendar = (str(content.get(name, getattr(cls, name))) for name in ("interval", "calendar"))
        return cls(str(content["market"]), names, str(content["hash"]), interval, calendar)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.content())

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read what `save` wrote."""
        return cls.of(json.loads(path.read_text(encoding="utf-8")))
