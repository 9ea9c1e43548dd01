"""The loop as a policy of a simulation: its own code, fed with bars from memory and trained in this process."""

from __future__ import annotations

from tradeloop.loop.turn import Loop, Parts, Turn
from tradeloop.monitoring.feed import ArrayFeed
from tradeloop.simulation.driver import Stage
from tradeloop.simulation.trainer import MemoryTrainer


class Looping:
    """Lets the loop have its turns, and keeps what they brought."""

    def __init__(self, stage: Stage) -> None:
        self._alarm: int | None = None
        self._feed = ArrayFeed(stage.world.bars, stage.clock)
        self._trainer = MemoryTrainer(stage, delay=stage.params.simulate.training_bars)
        self.loop = self.make(stage)

    def make(self, stage: Stage) -> Loop:
        """Return a loop that goes on from what the last one left in the database."""
        return Loop(
            Parts(
                database=stage.database,
                params=stage.params,
                clock=stage.clock,
                feed=self._feed,
                registry=stage.registry,
                trainer=self._trainer,
                bundle_of=stage.bundle,
            )
        )

    def turn(self, stage: Stage) -> None:
        """Run the loop's turn."""
        self._note(stage, self.loop.turn(stage.fresh))

    def _note(self, stage: Stage, turn: Turn) -> None:
        alarm = turn.evidence.skill_alarm
        champion = turn.evidence.champion
        if alarm is not None and alarm.seq != self._alarm and champion is not None:
            stage.note("alarm", champion.version, alarm.text)
        self._alarm = alarm.seq if alarm is not None else None
        for decision in turn.decisions:
            if decision.kind != "turn":
                stage.note(f"{decision.kind}: {decision.decision}", "", decision.reason)
        for done in turn.done:
            kind = done.action.kind if done.overridden is None else "overridden"
            stage.note("promoted" if kind == "promote" else kind, done.action.version, done.action.reason)
