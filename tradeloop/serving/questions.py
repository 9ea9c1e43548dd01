"""What passes between the one who answers and those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tradeloop.predictor import Prediction
from tradeloop.state.feature_rows import OnlineRows


@dataclass(frozen=True)
class Question:
    """What was answered, and from what.

    Attributes
    ----------
    answered
        The answers, in the order asked for; those without an id (unknown symbols) are nobody's parents.
    rows
        The champion's rows for them.
    reading
        Seconds from the question to the rows.
    as_of
        The past moment that was asked about, None for the present.
    """

    answered: Sequence[Prediction]
    rows: OnlineRows
    schema_hash: str
    reading: float
    as_of: datetime | None


class Tally(Protocol):
    """Hears what becomes of the challengers' forecasts; called by any thread.

    A forecast is dropped because of the ``queue`` (full), the ``breaker`` (open), a ``failure``, because there are
    ``no_rows``, those that there are are of ``other_bar``, or the ``log`` did not take it.
    """

    def watched(self, version: str, arm: str, count: int, seconds: float) -> None:
        """Note that so many forecasts were made, in one batch, and handed to the log."""

    def dropped(self, version: str, why: str, count: int) -> None:
        """Note that so many forecasts were not made, or not logged."""

    def failed(self, version: str, reason: str) -> None:
        """Note that a model failed, or took too long."""

    def fell_back(self, version: str, arm: str, count: int) -> None:
        """Note that the champion answered so many questions of this arm (0: none)."""
