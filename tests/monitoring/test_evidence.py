from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from tests.evidences import NOW, alarm, quiet
from tradeloop.monitoring.evidence import LastTraining, RegimeNow, Request, plain


def test_it_is_json_with_times_as_text() -> None:
    evidence = quiet(
        skill=alarm(10),
        regime=RegimeNow("high", NOW, "normal"),
        last_training=LastTraining(NOW - timedelta(days=1), "failed"),
        requests=(Request("r1", "ann", "because", {"seed": 2}),),
        drift={"share": np.float64(0.25), "worst": float("nan"), "count": np.int64(3), "any": np.bool_(True)},
    )
    told = json.loads(json.dumps(evidence.as_dict(), allow_nan=False))
    assert told["now"] == NOW.isoformat()
    assert told["champion"]["train_end"] == evidence.champion.train_end.isoformat()  # type: ignore[union-attr]
    assert told["regime"] == {"present": "high", "since": NOW.isoformat(), "previous": "normal"}
    assert told["drift"] == {"share": 0.25, "worst": None, "count": 3, "any": True}
    assert told["requests"][0]["overrides"] == {"seed": 2}


def test_parts_that_say_nothing_are_left_out() -> None:
    assert not {"watch", "predecessor", "requests", "last_training", "staleness", "new_bars"} & set(quiet().as_dict())


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="evidence may hold numbers, text, times, lists and mappings, got set"):
        plain({"drift": {1, 2}})


def test_an_alarm_is_read_with_and_without_an_estimate_of_the_change() -> None:
    assert quiet().skill_alarm is None
    with_estimate, without = quiet(skill=alarm(5, seq=7)).skill_alarm, quiet(calibration=alarm()).calibration_alarm
    assert with_estimate is not None and without is not None
    assert (with_estimate.seq, with_estimate.changed_at) == (7, NOW - timedelta(hours=5))
    assert isinstance(with_estimate.changed_at, datetime)
    assert without.changed_at is None


def test_only_a_predecessor_that_exists_can_be_better() -> None:
    assert not quiet(watch={"worse": True}).worse_than_predecessor
    assert quiet(watch={"worse": True}, predecessor="p" * 64).worse_than_predecessor
    assert not quiet(watch={"worse": False}, predecessor="p" * 64).worse_than_predecessor
