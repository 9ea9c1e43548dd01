"""What restated bars change about outcomes that were written already."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime

from tradeloop.bars import Bars
from tradeloop.monitoring.ending import Ending
from tradeloop.monitoring.label_span import Labelled, Labeller, locate, to_stamps
from tradeloop.monitoring.ledger import Ledger, Past
from tradeloop.monitoring.records import Outcome, Resolved

# Back-adjusting multiplies all prices by one factor; what that does to a label is rounding, not news.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


@dataclass(frozen=True, slots=True)
class Revision:
    """An outcome, and the one that takes its place."""

    before: Resolved
    after: Outcome
    ending: Ending

    @property
    def resolved(self) -> Resolved:
        """The prediction with its new outcome."""
        return Resolved(self.before.prediction, self.after)


def revisions(ledger: Ledger, labeller: Labeller, bars: Bars, *, restated: int, since: datetime) -> list[Revision]:
    """Return which outcomes of a symbol, of labels that ended since a time, the bars contradict.

    An outcome whose bars are not all there is left as it is.
    """
    rows = ledger.labels_since(bars.symbol, since)
    at, there = locate(bars, to_stamps([row.feature_time for row in rows]))
    there &= at + labeller.horizon < len(bars)
    if not there.any():
        return []
    span = labeller.span(bars, restated, at[there])
    labels = {row.seq: span.at(int(i)) for row, i, has_bar in zip(rows, at, there, strict=True) if has_bar}
    differ = [row.seq for row in rows if row.seq in labels and _differs(row, labels[row.seq])]
    return [_revision(before, labels[before.seq]) for before in ledger.by_seq(differ)]


def _revision(before: Resolved, label: Labelled) -> Revision:
    old = before.outcome
    label = replace(label, regime=old.regime)  # what decisions were made by stays
    ending = Ending(0, before.prediction, "resolved", old.resolved_at, None, label, old.repeat)
    return Revision(before, ending.outcome(old.seq, old.revision + 1), ending)


def _differs(row: Past, label: Labelled) -> bool:
    """Return whether an outcome is another one now, by more than rounding."""
    pairs = ((row.ret, label.ret), (row.range, label.range))
    same = all(math.isclose(old, new, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE) for old, new in pairs)
    return row.label_end != label.label_end or not same
