from __future__ import annotations

import numpy as np

from tests.bundles import REPOSITORY
from tests.simulation.conftest import WARM_UP, parameters
from tradeloop.config import Params
from tradeloop.simulation.world import World, assemble_world, build_world


def test_what_is_known_has_ended_and_nothing_that_has_ended_is_missing(still: tuple[Params, World]) -> None:
    _, world = still
    now = world.times[WARM_UP]
    known = world.known(now)
    assert known.label_end.max() <= now
    assert len(known) == (world.matrix.label_end <= now).sum()
    # One bar later one more label has ended.
    assert len(world.known(world.times[WARM_UP + 1])) == len(known) + 1
    recent = world.known(now, since=world.times[WARM_UP - 100])
    assert recent.timestamp.min() == world.times[WARM_UP - 100]


def test_a_row_is_what_was_known_at_its_close(still: tuple[Params, World]) -> None:
    params, world = still
    step = WARM_UP + 50
    now = world.times[step]
    past = {name: bars[: int(np.searchsorted(bars.timestamp, now, side="right"))] for name, bars in world.bars.items()}
    then = assemble_world(params, past)
    assert then.times[-1] == now
    np.testing.assert_array_equal(then.x[then.at(len(then.times) - 1)], world.x[world.at(step)])
    later = world.known(now)
    np.testing.assert_array_equal(then.matrix.x, later.x)
    np.testing.assert_array_equal(then.matrix.y["return"], later.y["return"])


def test_a_real_market_is_read_and_checked_like_the_stages_do() -> None:
    params = parameters(bars=1)
    world = build_world(params.model_copy(update={"market": "us_daily"}), root=REPOSITORY)
    assert set(world.bars) == {"AAPL", "IBM", "MSFT", "GOOG"}
    widths = np.diff(world.start)
    assert widths.max() == 4
    assert widths.min() >= 1
