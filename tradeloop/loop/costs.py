"""What trades have turned out to cost, looked at now and then: a hurdle at once, a proposal for the next retraining."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tradeloop.config import Params
from tradeloop.loop.feedback import Advice, Feedback
from tradeloop.monitoring.fills import costs, realised
from tradeloop.state.database import Database

MEMORY = timedelta(days=365)
LOOK_EVERY = 20
"""Turns between two looks at the fills."""


class CostWatch:
    """Reads the bot's fills and keeps what follows from them.

    What it knows is a function of the fills in the database and of the hurdle that stands, so all that is remembered
    is the hurdle.
    """

    def __init__(self, database: Database, params: Params) -> None:
        self._database = database
        self._params = params
        self._feedback = Feedback(params.feedback, params.evaluate)
        self._turns = 0
        self._advice: Advice | None = None

    def look(self, now: datetime, assumed: float | None) -> Advice | None:
        """Return new advice if it is time to look.

        Parameters
        ----------
        now
            The market's time; trades of the last `MEMORY` count.
        assumed
            What the champion reckons a trade costs one way, basis points; None without a champion.
        """
        due = self._turns % LOOK_EVERY == 0
        self._turns += 1
        if not due or assumed is None:
            return None
        window = self._params.feedback.window
        paid = costs(self._database, self._params.market, window)
        if len(paid) < self._params.feedback.min_fills and self._feedback.hurdle_bps is None:
            self._advice = None
            return None
        trades = realised(self._database, self._params.market, now - MEMORY)
        # A round trip trades its value twice, and feedback counts by that of one way.
        closed = [trade for trade in reversed(trades) if trade.net_pnl is not None and trade.notional > 0]
        net = [2e4 * trade.net_pnl / trade.notional for trade in closed if trade.net_pnl is not None]
        self._advice = self._feedback.update(paid, net[:window], assumed=assumed)
        return self._advice

    @property
    def evidence(self) -> dict[str, Any]:
        """The evidence on costs, with the parameters that it proposes under ``overrides``."""
        if self._advice is None or not self._advice.evidence:
            return {}
        proposed = {"overrides": dict(self._advice.overrides)} if self._advice.overrides else {}
        return self._advice.evidence | proposed

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return self._feedback.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._feedback.restore(dict(state))
