"""Feast's registry file, written whole or not at all."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from feast.infra.registry.file import FileRegistryStore
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs in the lock

from tradeloop.atomic import write_bytes


class AtomicFileRegistryStore(FileRegistryStore):  # type: ignore[misc]  # Feast has no types
    """Feast's file registry but for two things: a reader never sees half a file, and half a file is no file.

    Feast writes over the registry in place, so that a reader, or a crash, may meet a part of it. What the registry
    holds can be generated again from the schemas; a damaged one is therefore as good as none.
    """

    def get_registry_proto(self) -> Any:
        """Return the registry; raise FileNotFoundError (Feast then makes a new one) if it is missing or damaged."""
        try:
            return super().get_registry_proto()
        except DecodeError:
            raise FileNotFoundError(f"{self._filepath} is damaged") from None

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Replace the registry."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        write_bytes(self._filepath, registry_proto.SerializeToString())
