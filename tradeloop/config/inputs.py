"""Where a market's data beyond bars lies; what the kinds hold is `tradeloop.inputs.contract`'s."""

from __future__ import annotations

from typing import Literal, get_args

from tradeloop.config.base import Block, Span

InputKind = Literal["book", "trades", "funding", "liquidations", "options", "events", "news"]
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)


class InputFiles(Block):
    """Where the files of one kind lie and what their columns are called.

    `path` is a folder of files named by symbol, a path that holds ``{symbol}``, or one file for all symbols. `without`
    names columns that the files lack: features that need them are left out. Data older than `max_age` count as not
    known; null is the kind's own.
    """

    path: str
    timestamp: str = "timestamp"
    known_at: str = "known_at"
    timestamp_format: str | None = None
    timezone: str = "UTC"
    columns: dict[str, str] = {}
    without: list[str] = []
    max_age: Span | None = None
