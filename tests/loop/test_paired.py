from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from tests.duels import EDGE, Skill, at, pair, resolved
from tradeloop.config import Rollout as Config
from tradeloop.loop.betting import CEILING, FRACTIONS, Capital
from tradeloop.loop.losses import DECAY, Baselines, Forecasts, Pair
from tradeloop.loop.paired import PairedTest
from tradeloop.loop.pairing import Pairing
from tradeloop.loop.stream import BOUND, WARM_UP, Margins, Stream

CONFIG = Config()
DIRECTION = Config(weights={"direction": 1.0})
RANGE = Config(weights={"range": 1.0})
ZERO = Margins(0.0, 0.0, 0.0, 0.0)


def duel(
    test: PairedTest, champion: Skill, challenger: Skill, steps: int, *, seed: int = 0, symbols: Sequence[str] = ("S",)
) -> PairedTest:
    skills = {"a": champion, "b": challenger}
    for step in range(steps):
        test.update(pair(resolved(step, skills, symbols=symbols, seed=seed), "a", "b"))
    return test


def simple(
    step: int,
    champion: Forecasts,
    challenger: Forecasts,
    *,
    symbol: str = "S",
    bars: int = 1,
    up: float = 1.0,
    ret: float = 0.01,
    log_range: float = -5.0,
) -> Pair:
    return Pair(symbol, at(step), at(step + bars), champion, challenger, up, ret, log_range)


# -- bets -------------------------------------------------------------------------------------------------------------


def test_capital_is_what_the_gamblers_won() -> None:
    capital = Capital()
    for x in (0.5, -0.2, 1.0):
        capital.update(x)
    by_hand = [(1 + f * 0.5) * (1 - f * 0.2) * (1 + f) for f in FRACTIONS]
    assert capital.value == pytest.approx(sum(by_hand) / len(FRACTIONS))
    secured = sum(one * (1 - f) for one, f in zip(by_hand, FRACTIONS, strict=True)) / len(FRACTIONS)
    assert capital.secured == pytest.approx(secured)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1, 1), max_size=60), st.sampled_from([0.0, 0.01]))
def test_capital_is_never_negative_and_survives_json(xs: list[float], enter: float) -> None:
    capital = Capital(enter)
    for x in xs:
        capital.update(x)
    assert 0 <= capital.secured <= capital.value <= CEILING + 1
    again = Capital(enter).restore(json.loads(json.dumps(capital.state())))
    for one in (capital, again):
        one.update(0.3)
    assert again.value == capital.value


def test_capital_has_a_ceiling() -> None:
    capital = Capital()
    for _ in range(500):
        capital.update(1.0)
    assert capital.value == pytest.approx(CEILING)


def exceeded(streams: NDArray[np.float64], *, enter: float = 0.0, level: float = 20.0) -> float:
    """Return the share of streams (n, T) on which the capital ever reached `level`."""
    stakes = np.full((len(streams), len(FRACTIONS)), (0.5 if enter else 1.0) / len(FRACTIONS))
    cash, best = (0.5 if enter else 0.0), np.zeros(len(streams))
    for x in streams.T:
        stakes = stakes + enter * cash / len(FRACTIONS)
        cash *= 1 - enter
        stakes = stakes * (1 + np.array(FRACTIONS) * x[:, None])
        best = np.maximum(best, cash + stakes.sum(axis=1))
    return float((best >= level).mean())


@pytest.mark.parametrize("enter", [0.0, 0.005])
def test_looking_all_the_time_stays_below_alpha(enter: float) -> None:
    """3,000 streams of 1,000 observations with a mean of zero, skewed and of changing size."""
    rng = np.random.default_rng(1)
    size = np.exp(np.cumsum(rng.normal(0, 0.05, (3_000, 1_000)), axis=1)).clip(0.02, 0.25)
    rare = rng.random((3_000, 1_000)) < 0.2
    x = size * np.where(rare, -4.0, 1.0)
    assert abs(float(x.mean())) < 1e-3
    reached = exceeded(x, enter=enter)
    assert reached <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3_000)
    assert reached > 0.005  # else the bets would be too timid to prove anything


def test_the_vectorised_bets_of_these_tests_are_the_real_ones() -> None:
    xs = np.random.default_rng(0).uniform(-0.5, 0.6, (1, 200))
    for enter in (0.0, 0.01):
        capital, best = Capital(enter), 0.0
        for x in xs[0]:
            capital.update(float(x))
            best = max(best, capital.value)
        assert exceeded(xs, enter=enter, level=best * 0.999) == 1.0
        assert exceeded(xs, enter=enter, level=best * 1.001) == 0.0


def test_a_mean_that_is_zero_only_on_average_does_not_pay_a_constant_bettor() -> None:
    """Half a year +, half a year -: at any moment until then the average is above zero, afterwards it is not."""
    rng = np.random.default_rng(2)
    drift = np.where(np.arange(2_000) % 1_000 < 500, -0.05, 0.05)  # the bad half first: the average is never above 0
    x = (drift + rng.uniform(-0.6, 0.6, (2_000, 2_000))).clip(-1, 1)
    assert exceeded(x) <= 0.05


def test_entering_late_notices_what_begins_late() -> None:
    xs = [-0.1] * 300 + [0.15] * 150
    constant, fresh = Capital(), Capital(1 / 500)
    for x in xs:
        constant.update(x)
        fresh.update(x)
    assert constant.value < 1 < 20 < fresh.value


# -- losses and streams -----------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    one = simple(0, Forecasts(0.8, 0.004, -5.0), Forecasts(0.4, 0.0, -4.0), ret=0.02, log_range=-4.5)
    found = Baselines(0.6).losses(one)
    assert found["direction"].champion == pytest.approx(-math.log(0.8))
    assert found["direction"].challenger == pytest.approx(-math.log(0.4))
    assert found["direction"].baseline == pytest.approx(-math.log(0.6))
    variance = math.exp(-9.0)
    assert found["return"].champion == pytest.approx(0.016**2 / variance)
    assert found["return"].challenger == pytest.approx(0.02**2 / variance)
    assert found["return"].baseline == found["return"].challenger
    assert (found["range"].champion, found["range"].challenger) == (0.25, 0.25)
    assert found["range"].baseline is None


def test_baselines_learn() -> None:
    baselines = Baselines()
    nothing = Forecasts(None, None, -5.0)
    baselines.learn(simple(0, nothing, nothing, up=1.0, log_range=-4.0))
    baselines.learn(simple(1, nothing, nothing, up=1.0, log_range=-5.0))
    found = baselines.losses(simple(2, Forecasts(0.5, None, -5.0), Forecasts(0.5, None, -5.0), log_range=-4.5))
    assert found["direction"].baseline == pytest.approx(-math.log((25 + 2) / 52))
    assert found["range"].baseline == pytest.approx((-4.5 - (DECAY * -4.0 + (1 - DECAY) * -5.0)) ** 2)


def test_what_one_of_them_withheld_is_not_compared() -> None:
    whole, part = Forecasts(0.5, 0.0, -5.0), Forecasts(None, 0.0, -5.0)
    assert set(Baselines().losses(simple(0, whole, part))) == {"return", "range"}
    assert set(Baselines().losses(simple(0, part, replace(whole, log_range=None)))) == set()


def test_the_bet_on_an_observation_knows_nothing_of_it() -> None:
    """Scale and margin are of the past: the same past and another present differ only in the bet's outcome."""
    streams = [Stream(0.0), Stream(0.0)]
    for stream in streams:
        for k in range(WARM_UP + 5):
            stream.update((-1.0) ** k, 0.1, 0.7, Margins(0.05, 0.05, 0.001, 0.001))
    before = streams[0].better.value
    first, second = streams
    scale = first.scale
    first.update(0.5, 0.1, 0.7, ZERO)
    second.update(-0.5, 0.1, 0.7, ZERO)
    up, down = (stream.better.value for stream in streams)
    assert up + down == pytest.approx(2 * before)
    assert first.scale == second.scale != scale


def test_a_disaster_counts_five_scales() -> None:
    stream = Stream(0.0)
    for k in range(200):
        stream.update((-1.0) ** k, None, None, ZERO)
    before = stream.better.state()
    stream.update(-1e9, None, None, ZERO)
    assert stream.better.state()[1] == pytest.approx(before[1] * 0.1)  # the boldest lost 90%
    assert stream.clipped == 1
    assert stream.scale < 1 + BOUND**2 / 100


def test_forecasts_that_begin_to_differ_late_are_compared_all_the_same() -> None:
    stream = Stream(0.0)
    for _ in range(100):
        stream.update(0.0, 0.01, 0.7, ZERO)
    for k in range(400):
        stream.update(0.3 if k % 4 else -0.3, 0.01, 0.7, ZERO)
    assert stream.better.value > 20
    assert stream.clipped < 150  # the scale has found them


# -- the test ---------------------------------------------------------------------------------------------------------


def test_better_equal_and_worse() -> None:
    good, fair, chance = Skill(EDGE), Skill(EDGE / 2), Skill(0.0)
    assert duel(PairedTest(DIRECTION), chance, good, 300).verdict(0.05).kind == "better"
    assert duel(PairedTest(DIRECTION), good, chance, 300).verdict(0.05).kind == "worse"
    assert duel(PairedTest(DIRECTION), fair, fair, 300).verdict(0.05).kind == "open"
    assert duel(PairedTest(RANGE), Skill(noise=0.3), Skill(noise=0.1), 400).verdict(0.05).kind == "better"


def test_models_of_equal_skill_are_hardly_ever_told_apart() -> None:
    """Their errors are their own, so that they differ at every bar; 40 markets of 250 bars, looked at each time."""
    wrong = 0
    equal = Config(improvement=0.0, floor=0.0, weights={"range": 1.0})
    for seed in range(40):
        test, skill = PairedTest(equal), Skill(noise=0.2)
        for step in range(250):
            test.update(pair(resolved(step, {"a": skill, "b": skill}, seed=seed), "a", "b"))
            if test.e_value("better") >= 10:
                wrong += 1
                break
    assert wrong <= 40 * 0.1 + 3 * math.sqrt(40 * 0.1 * 0.9)


def test_improvement_is_relative_to_live_skill() -> None:
    """A challenger 3% closer to the truth in skill is better than 1% of it, and not than 30%."""
    champion, challenger = Skill(noise=0.15), Skill(noise=0.05)
    values = [
        duel(PairedTest(Config(improvement=share, weights={"range": 1.0})), champion, challenger, 600).e_value("better")
        for share in (0.0, 0.3, 3.0)
    ]
    assert values[0] > 20 > values[2]
    assert values[0] > values[1] > values[2]


def test_the_floor_is_what_a_champion_without_skill_must_lose_by() -> None:
    champion, challenger = Skill(0.0), Skill(0.4)
    low, high = (
        duel(PairedTest(Config(floor=floor, weights={"direction": 1.0})), champion, challenger, 500)
        for floor in (0.001, 0.5)
    )
    assert low.e_value("better") > 20 > 1 > high.e_value("better")
    assert high.evidence()["targets"]["direction"]["needed"] == pytest.approx(0.5 * math.log(2), rel=0.1)


def test_weights_say_which_targets_count() -> None:
    champion, challenger = Skill(0.0, noise=0.1), Skill(EDGE, noise=0.1)
    test = duel(PairedTest(Config(weights={"direction": 1.0, "range": 3.0})), champion, challenger, 300)
    expected = 0.25 * test.e_value("better", "direction") + 0.75 * test.e_value("better", "range")
    assert test.e_value("better") == pytest.approx(expected)
    with pytest.raises(ValidationError, match="at least one target"):
        Config(weights={"range": 0.0})


def test_no_target_that_the_champion_has_proven_may_get_worse() -> None:
    champion, challenger = Skill(0.0, noise=0.0), Skill(EDGE, noise=0.5)
    unproven = duel(PairedTest(CONFIG), champion, challenger, 400)
    proven = duel(PairedTest(CONFIG, proven=("range",)), champion, challenger, 400)
    assert unproven.verdict(0.05).kind == "better"
    assert proven.verdict(0.05).kind == "worse"
    assert "range is proven worse" in proven.verdict(0.05).reason


def test_the_tolerance_is_how_much_worse_is_borne() -> None:
    champion, challenger = Skill(noise=0.0), Skill(noise=0.2)
    values = [
        duel(PairedTest(Config(tolerance=share)), champion, challenger, 500).e_value("worse", "range")
        for share in (0.0, 3.0)
    ]
    assert values[0] > 20 > 1 > values[1]


def test_a_watch_asks_for_no_margin() -> None:
    champion, challenger = Skill(noise=0.2), Skill(noise=0.05)
    config = Config(improvement=5.0, weights={"range": 1.0})
    assert duel(PairedTest(config), champion, challenger, 500).verdict(0.05).kind != "better"
    assert duel(PairedTest(config, watch=True), champion, challenger, 500).verdict(0.05).kind == "better"


def test_symbols_of_one_moment_are_one_observation() -> None:
    """Ten copies of one symbol carry no more evidence than the symbol does."""
    skills = {"a": Skill(0.0), "b": Skill(EDGE)}
    one, ten = PairedTest(DIRECTION), PairedTest(DIRECTION)
    for step in range(200):
        (found,) = pair(resolved(step, skills), "a", "b")
        one.update([found])
        ten.update([replace(found, symbol=str(copy)) for copy in range(10)])
    assert ten.pairs == 10 * one.pairs == 2_000
    assert ten.times == one.times == 200
    advantage = [test.evidence()["targets"]["direction"]["advantage"] for test in (one, ten)]
    assert advantage[0] == pytest.approx(advantage[1])
    assert ten.e_value("better") == pytest.approx(one.e_value("better"), rel=0.05)


def test_a_symbol_whose_label_ends_later_is_left_out_there() -> None:
    test = PairedTest(CONFIG)
    said = Forecasts(0.5, 0.0, -5.0)
    test.update([simple(0, said, said), simple(0, said, said, symbol="gap", bars=3)])
    test.update([simple(1, said, said), simple(1, said, said, symbol="gap", bars=2)])
    assert (test.pairs, test.overlapping) == (2, 2)


# -- overlapping labels -----------------------------------------------------------------------------------------------


def test_overlapping_labels_are_dealt_to_rows() -> None:
    test = PairedTest(CONFIG, horizon=3)
    said = Forecasts(0.5, 0.0, -5.0)
    for step in range(30):
        test.update([simple(step, said, said, bars=3)])
    assert [row["streams"]["direction"][0] for row in test.state()["rows"]] == [10, 10, 10]
    assert (test.times, test.overlapping) == (30, 0)
    short = PairedTest(CONFIG, horizon=1)
    for step in range(30):
        short.update([simple(step, said, said, bars=3)])
    assert (short.times, short.overlapping) == (10, 20)


def test_rows_that_are_not_in_use_count_one() -> None:
    test = PairedTest(DIRECTION, horizon=4)
    skills = {"a": Skill(0.0), "b": Skill(EDGE)}
    for step in range(0, 800, 4):  # asked every fourth bar only
        test.update(pair(resolved(step, skills, horizon=4), "a", "b"))
    alone = PairedTest(DIRECTION)
    for step in range(0, 800, 4):
        alone.update(pair(resolved(step, skills, horizon=4), "a", "b"))
    assert test.e_value("better") == pytest.approx((alone.e_value("better") + 3) / 4)


def test_bets_in_flight_are_counted_as_lost() -> None:
    test, skills = PairedTest(DIRECTION, horizon=2), {"a": Skill(0.0), "b": Skill(EDGE)}
    for step in range(200):
        test.update(pair(resolved(step, skills, horizon=2), "a", "b"))
    first, second = (Capital().restore(row["streams"]["direction"][7]) for row in test.state()["rows"])
    assert test.e_value("better") == pytest.approx((first.secured + second.value) / 2)
    assert first.secured < first.value


@pytest.mark.parametrize(("horizon", "valid"), [(5, True), (1, False)])
def test_overlap_is_why_rows_are_needed(horizon: int, valid: bool) -> None:
    """Labels of five bars that are sums of noise: in one row their dependence is taken for evidence, in five it is not.

    The champion always says up, the challenger always down, and the truth is neither.
    """
    up, down = Forecasts(0.6, None, None), Forecasts(0.4, None, None)
    free = Config(improvement=0.0, floor=0.0, weights={"direction": 1.0})
    wrong, markets = 0, 100
    for seed in range(markets):
        noise = np.random.default_rng(seed).standard_normal(405)
        sums = np.convolve(noise, np.ones(5), "valid")
        test = PairedTest(free, horizon=horizon)
        for step, total in enumerate(sums[:400]):
            bars = 5 if valid else 1  # pretend that they don't overlap
            test.update([simple(step, up, down, bars=bars, up=float(total > 0))])
            if test.e_value("better") >= 10:
                wrong += 1
                break
    limit = markets * 0.1 + 3 * math.sqrt(markets * 0.1 * 0.9)
    assert (wrong <= limit) is valid, wrong


# -- state, speed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watch", [False, True])
def test_the_state_is_all_there_is(watch: bool) -> None:
    test = duel(PairedTest(CONFIG, horizon=2, watch=watch), Skill(0.0, 0.2), Skill(EDGE, 0.1), 120, symbols=("A", "B"))
    written = json.dumps(test.state(), allow_nan=False)
    assert len(written) < 4_000
    again = PairedTest(CONFIG, horizon=2, watch=watch).restore(json.loads(written))
    batch = pair(resolved(121, {"a": Skill(0.0), "b": Skill(EDGE)}, symbols=("A", "B")), "a", "b")
    for one in (test, again):
        one.update(batch)
    assert again.state() == test.state()
    assert again.evidence() == test.evidence()
    json.dumps(test.evidence(), allow_nan=False)


def test_a_state_of_longer_labels_is_not_taken_over() -> None:
    said = Forecasts(0.5, 0.0, -5.0)
    long = PairedTest(CONFIG, horizon=3)
    for step in range(9):
        long.update([simple(step, said, said, bars=3)])
    assert PairedTest(CONFIG, horizon=2).restore(long.state()).pairs == 0


def models(*names: str) -> set[str]:
    return {each.prediction.model for each in resolved(0, {name: Skill() for name in names})}


def test_a_time_closes_when_all_of_the_last_time_are_there() -> None:
    pairing, skills = Pairing(), {"a": Skill(), "b": Skill()}
    first, second = (resolved(step, skills, symbols=("X", "Y")) for step in range(2))
    assert [pairing.add(each, models("a", "b")) for each in first] == [[]] * 4
    found = [pairing.add(each, models("a", "b")) for each in second]
    assert [[moment.time for moment in each] for each in found] == [[at(0)], [], [], [at(1)]]
    (moment,) = found[-1]
    assert {each.symbol for each in moment.pairs(*sorted(models("a", "b")))} == {"X", "Y"}


def test_what_comes_late_is_left_out_and_waited_for_the_next_time() -> None:
    pairing, skills = Pairing(), {"a": Skill(), "b": Skill()}
    known = models("a", "b")
    zero, one, two = (resolved(step, skills, symbols=("X", "Y")) for step in range(3))
    for each in zero[:2]:
        pairing.add(each, known)
    assert len(pairing.add(one[0], known)) == 1  # Y has not been seen yet
    assert len(pairing.add(one[1], known)) == 1
    for each in one[2:]:
        assert pairing.add(each, known) == []
    assert pairing.late == 2
    assert [len(pairing.add(each, known)) for each in two] == [0, 0, 0, 1]


def test_models_that_take_no_part_and_outcomes_that_are_none_are_passed_over() -> None:
    pairing = Pairing()
    (first,) = resolved(0, {"a": Skill()})
    assert pairing.add(first, set()) == []
    expired = replace(first, outcome=replace(first.outcome, status="expired", direction=None))
    assert pairing.add(expired, models("a")) == []
    assert pairing.state()["time"] is None


def test_the_first_of_two_answers_counts_and_a_restated_outcome_replaces() -> None:
    pairing, known = Pairing(), models("a")
    (first,) = resolved(0, {"a": Skill()})
    again = replace(first, prediction=replace(first.prediction, p_up=0.9))
    restated = replace(first, outcome=replace(first.outcome, ret=0.5, revision=1))
    for each in (first, restated, again):
        pairing.add(each, known)
    moment, _ = pairing.add(resolved(1, {"a": Skill()})[0], known)
    (ended,) = moment.ended.values()
    assert ended.forecasts.p_up == first.prediction.p_up
    assert ended.labels[1] == 0.5
    assert pairing.add(replace(restated, outcome=replace(restated.outcome, revision=2)), known) == []
    assert pairing.late == 0


def test_models_with_other_labels_are_no_pair() -> None:
    pairing, known = Pairing(), models("a", "b")
    one, other = resolved(0, {"a": Skill(), "b": Skill()})
    pairing.add(one, known)
    pairing.add(replace(other, outcome=replace(other.outcome, label_end=at(1) + timedelta(hours=1))), known)
    (moment,) = pairing.add(resolved(1, {"a": Skill()})[0], known)
    a, b = (each.prediction.model for each in (one, other))
    assert moment.pairs(a, b) == []
