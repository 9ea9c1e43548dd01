from __future__ import annotations

from pathlib import Path

from tests.bundles import REPOSITORY
from tests.simulation.conftest import WARM_UP, parameters
from tradeloop.config.degradation import Weights
from tradeloop.errors import RegistryError
from tradeloop.lifecycle import ModelEvent
from tradeloop.simulation.driver import Plan, Stage, simulate
from tradeloop.simulation.looping import Looping
from tradeloop.simulation.world import build_world

DRIFT = 40
OFF = {"accuracy_drop": {"enabled": False}, "time_based": {"enabled": False}, "regime_change": {"enabled": False}}


def test_the_champion_is_flagged_for_as_long_as_its_alarm_stands(tmp_path: Path) -> None:
    """The alarm comes with a sign flip, and goes when other parameters let the watch begin anew."""
    triggers = parameters(bars=1).triggers.model_dump()
    for name, values in OFF.items():
        triggers[name] |= values
    params = parameters(bars=200, drift_after=DRIFT, accuracy=0.8, triggers=triggers)
    seen: list[tuple[bool, str]] = []
    events: list[ModelEvent] = []

    class Flags(Looping):
        flagged = 0

        def turn(self, stage: Stage) -> None:
            super().turn(stage)
            champion = stage.registry.champion()
            assert champion is not None
            seen.append((self._alarm is not None, champion.state))
            self.flagged += champion.state == "degraded"
            if self.flagged == 5:  # as a restart with other parameters does it
                other = params.degradation.model_copy(update={"weights": Weights(direction=1, ret=0, range=0)})
                stage.params = params.model_copy(update={"degradation": other})
                self.loop = self.make(stage)
            elif self.flagged == 8:
                self.loop = self.make(stage)
            events[:] = stage.registry.events()

    simulate(params, build_world(params, root=REPOSITORY), Plan(WARM_UP), Flags, home=tmp_path / "run")
    assert [state == "degraded" for _, state in seen] == [alarm for alarm, _ in seen]
    told = [event for event in events if event.kind in ("degraded", "recovered")]
    assert [event.kind for event in told] == ["degraded", "recovered", "degraded"]
    assert {event.actor for event in told} == {"loop"}
    assert "outcomes" in told[0].reason
    assert set(told[0].evidence) >= {"seq", "change", "outcomes"}
    assert "began anew" in told[1].reason


def test_a_champion_that_somebody_replaced_meanwhile_is_left_alone(tmp_path: Path) -> None:
    params = parameters(bars=200, drift_after=DRIFT, accuracy=0.8)
    refused = []

    class Late(Looping):
        def turn(self, stage: Stage) -> None:
            def refuse(*_: object, **__: object) -> None:
                refused.append(stage.step)
                raise RegistryError("only the champion can be degraded")

            stage.registry.degrade = refuse  # type: ignore[method-assign,assignment]
            super().turn(stage)

    simulate(params, build_world(params, root=REPOSITORY), Plan(WARM_UP, stop=WARM_UP + 150), Late, home=tmp_path / "r")
    assert refused and refused[0] > WARM_UP + DRIFT
