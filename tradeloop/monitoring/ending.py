"""How a prediction ends, before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tradeloop.monitoring.label_span import Labelled
from tradeloop.monitoring.records import Logged, Outcome, Status


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one prediction.

    Attributes
    ----------
    ticket
        Number of its row in ``pending``.
    at
        The market's time at which it was learned.
    label
        What became of its bar; None unless `status` is ``resolved``.
    """

    ticket: int
    prediction: Logged
    status: Status
    at: datetime
    reason: str | None = None
    label: Labelled | None = None
    repeat: bool = False

    @property
    def prices(self) -> dict[str, float | None]:
        """The prices that the labels assume, by column."""
        if self.label is None:
            return {"entry_price": None, "exit_price": None}
        return {"entry_price": self.label.entry, "exit_price": self.label.exit}

    def outcome(self, seq: int, revision: int = 0) -> Outcome:
        """Return the record of it under a number."""
        found, label = self.prediction.id, self.label
        if label is None:
            ended = Outcome(seq, found, self.status, self.reason, None, None, None, None, "unknown", revision, self.at)
        else:
            ended = Outcome(
                seq,
                found,
                self.status,
                self.reason,
                label.label_end,
                label.direction,
                label.ret,
                label.range,
                label.regime,
                revision,
                self.at,
                self.repeat,
            )
        return ended
