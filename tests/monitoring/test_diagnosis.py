from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evidences import CHAMPION, HOUR, NOW, alarm, changed, hourly, quiet
from tradeloop.errors import ConfigError
from tradeloop.monitoring.diagnosis import (
    Cause,
    Remedy,
    diagnose,
    newest_window,
    parameter,
    rows_since,
    window_since,
)
from tradeloop.monitoring.staleness import closes_between

PARAMS = hourly()
BAD = {"integrity": {"scores": {"SYN": 60.0}, "findings": ["SYN: 12 bars of zero range"]}}
STALE = {"staleness": {"too_old": ["SYN"]}}
WORSE = {"predecessor": "p" * 64, "watch": {"worse": True, "log_e": 4.2}}
DRIFT = {"skill": alarm(700)}
COSTS = {"costs": {"realised": 9.0, "low": 6.5, "high": 11.0, "assumed": 5.0}}
MISCALIBRATED = {"calibration": alarm(50)}
SHIFT = {"drift": {"share": 0.3, "since": NOW.isoformat()}}
LATE = {"staleness": {"late_data": {"SYN": 3}, "late_components": {"service": 500.0}}}
ORDER: list[tuple[str, dict[str, Any]]] = [
    ("bad_data", BAD),
    ("stale_features", STALE),
    ("bad_promotion", WORSE),
    ("concept_drift", DRIFT),
    ("costs_up", COSTS),
    ("miscalibration", MISCALIBRATED),
    ("covariate_shift", SHIFT),
    ("late", LATE),
]


@pytest.mark.parametrize(
    ("changes", "cause", "remedy", "words"),
    [
        ({}, "none", "none", "no alarm stands"),
        (BAD, "bad_data", "abstain", "SYN scores 60, at least 80 is needed"),
        (STALE, "stale_features", "abstain", "1 of 1 symbols are older than 3h: SYN"),
        (WORSE, "bad_promotion", "roll_back", f"{CHAMPION.version} lost against its predecessor since its promotion"),
        (DRIFT, "concept_drift", "retrain", "skill alarm at outcome 900: direction: inverted"),
        (COSTS, "costs_up", "raise_threshold", "fills cost 9 bps, at least 6.5; 5 bps are assumed"),
        (MISCALIBRATED, "miscalibration", "retrain", "calibration alarm at outcome 900"),
        (SHIFT, "covariate_shift", "reweight", "30% of the features have drifted (20% count), skill is intact"),
        (LATE, "late", "alert", "bars are late: SYN 3"),
    ],
)
def test_each_row_of_the_table(changes: dict[str, Any], cause: str, remedy: str, words: str) -> None:
    found = diagnose(quiet(**changes), PARAMS)
    assert (found.cause, found.remedy) == (cause, remedy)
    assert words in found.reasons[0]
    assert found.considered == ()


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDER, 2)), ids=lambda pair: pair[0])
def test_of_two_causes_the_upper_one_counts_and_the_lower_is_kept(
    first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> None:
    both = {**second[1], **first[1]}
    for part in first[1].keys() & second[1].keys():
        both[part] = {**second[1][part], **first[1][part]}
    found = diagnose(quiet(**both), PARAMS)
    assert found.cause == first[0]
    masked = {"miscalibration", "covariate_shift"} if first[0] == "concept_drift" else set()
    assert (second[0] in masked) != any(text.startswith(f"{second[0]}: ") for text in found.considered)


_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "skill": st.sampled_from([{}, alarm(), alarm(3), alarm(5000)]),
    "calibration": st.sampled_from([{}, alarm(40)]),
    "drift": st.fixed_dictionaries({"share": st.floats(0, 1)}),
    "integrity": st.fixed_dictionaries({"scores": st.fixed_dictionaries({"SYN": st.floats(0, 100)})}),
    "costs": st.sampled_from([{}, COSTS["costs"], {"low": None, "assumed": 3.0}, {"low": 9.0, "assumed": 3.0}]),
    "watch": st.sampled_from([{}, {"worse": True}, {"worse": False}]),
    "predecessor": st.sampled_from([None, "p" * 64]),
    "champion": st.sampled_from([None, CHAMPION]),
    "staleness": st.sampled_from([{}, {"too_old": ["SYN"]}, {"late_data": {"SYN": None}}, {"too_old": []}]),
}


@given(st.fixed_dictionaries(_PARTS), st.booleans())
@settings(deadline=None, max_examples=200)
def test_there_is_always_one_remedy_with_reasons_and_always_the_same(changes: dict[str, Any], adapt: bool) -> None:
    params = changed(PARAMS, {"adapt.enabled": adapt})
    found = diagnose(quiet(**changes), params)
    assert found.cause in get_args(Cause) and found.remedy in get_args(Remedy)
    assert found.reasons and all(found.reasons)
    assert found == diagnose(quiet(**changes), params)
    assert (found.cause == "none") == (found.remedy == "none")


def test_bad_data_is_fetched_again_where_there_is_somebody_to_ask() -> None:
    live = changed(PARAMS, {"markets": {"synthetic": {**PARAMS.active.model_dump(), "clock": "live"}}})
    assert diagnose(quiet(**BAD), live).remedy == "refetch"
    assert diagnose(quiet(**BAD), changed(PARAMS, {"check.min_score": 50})).cause == "none"


def test_some_symbols_without_features_alarm_somebody_but_do_not_stop_the_others() -> None:
    market = {**PARAMS.active.model_dump(), "symbols": ["A", "B", "C"]}
    params = changed(PARAMS, {"markets": {"synthetic": market}})
    one, two = ({"staleness": {"too_old": names}} for names in (["A"], ["A", "B"]))
    assert diagnose(quiet(**one), params).remedy == "alert"
    assert diagnose(quiet(**two), params).remedy == "abstain"


def test_online_adaptation_mends_probabilities_where_it_is_on() -> None:
    assert diagnose(quiet(**MISCALIBRATED), changed(PARAMS, {"adapt.enabled": True})).remedy == "recalibrate"


def test_costs_count_only_if_the_whole_interval_is_above() -> None:
    unsure = {"costs": {"realised": 9.0, "low": 5.0, "high": 13.0, "assumed": 5.0}}
    assert diagnose(quiet(**unsure), PARAMS).cause == "none"


def test_a_lost_skill_waits_for_rows_then_names_the_window() -> None:
    waiting, ready = diagnose(quiet(skill=alarm(300)), PARAMS), diagnose(quiet(skill=alarm(700)), PARAMS)
    assert not waiting.overrides
    assert "300 rows since the change" in waiting.reasons[1] and "waits for 400" in waiting.reasons[1]
    assert ready.overrides["dataset.start"] == (NOW - 700 * HOUR).isoformat()
    blind = diagnose(quiet(skill=alarm(None)), PARAMS)
    assert (blind.remedy, dict(blind.overrides)) == ("retrain", {})


@pytest.mark.parametrize(("horizon", "symbols", "rows"), [(1, ["SYN"], 48), (5, ["SYN"], 44), (1, ["SYN", "B"], 96)])
def test_rows_since_a_change_are_those_whose_label_has_ended(horizon: int, symbols: list[str], rows: int) -> None:
    market = {**PARAMS.active.model_dump(), "symbols": symbols}
    params = changed(PARAMS, {"labels.horizon": horizon, "markets": {"synthetic": market}})
    assert rows_since(NOW - 48 * HOUR, NOW, params) == rows
    assert rows_since(NOW, NOW, params) == 0


@pytest.mark.parametrize(
    ("rows", "holdout", "leaf"),
    [
        (400, 0.5, 10),  # 200 rows before the holdout are a quarter of full_rows
        (800, 0.2625, 29),
        (1000, 0.21, 39),
        (1600, None, None),
    ],
)
def test_a_short_window_gives_the_gate_its_rows_and_the_trees_smaller_leaves(
    rows: int, holdout: float | None, leaf: int | None
) -> None:
    found = window_since(NOW, rows, PARAMS)
    assert found.get("split.holdout") == holdout
    assert found.get("train.random_forest.min_samples_leaf") == leaf
    share = found.get("split.holdout", PARAMS.split.holdout)
    assert rows * share >= PARAMS.gate.min_holdout_rows


def test_overrides_are_parameters_that_exist_and_fit() -> None:
    for rows in (1, 50, 400, 900, 10_000):
        found = window_since(NOW, rows, PARAMS)
        changed(PARAMS, found)
        for name, value in found.items():
            if name != "dataset.start":
                assert type(value) is type(parameter(PARAMS, name))


def test_the_newest_window_has_as_many_rows_as_asked_for() -> None:
    start = newest_window(4000, NOW, PARAMS)["dataset.start"]
    assert 1 + closes_between(PARAMS.active, datetime.fromisoformat(start), NOW) == 4000


def test_a_later_start_of_the_dataset_is_kept() -> None:
    late = changed(PARAMS, {"dataset.start": NOW - timedelta(days=3)})
    assert newest_window(4000, NOW, late) == {}


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'train\.forest\.leaf': 'forest' is not in Train"):
        parameter(PARAMS, "train.forest.leaf")
