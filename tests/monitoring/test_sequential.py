"""The e-detector: a martingale under the null, an alarm under the alternative, and a memory that survives a restart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.monitoring.sequential import Bet, Detector, Line, ScoreBets, Shift, SignBets

BETS = (Bet("direction", "lost", 0.5), Bet("direction", "turned", 0.3), Bet("range", "wider", 0.2))


def detector(run_length: float = 1_000.0, *bets: Bet) -> Detector:
    return Detector(bets or (Bet("range", "moved", 1.0),), run_length, width=1)


def total(found: Detector) -> float:
    return math.exp(found.statistic)


class TestRecursion:
    def test_is_the_sum_over_all_times_of_change(self) -> None:
        rng = np.random.default_rng(0)
        ratios, onsets = rng.normal(-0.1, 0.3, size=(40, 3)), rng.normal(-0.1, 0.5, size=(40, 3))
        counts = rng.integers(1, 4, size=40)
        found = Detector(BETS, 1_000.0, width=0)
        for at in range(40):
            found.update(ratios[at].tolist(), int(counts[at]), at=at, sums=(), onsets=onsets[at].tolist())
        weights = np.array([bet.weight for bet in BETS])
        expected = sum(
            counts[start] * weights * np.exp(onsets[start] + ratios[start + 1 :].sum(axis=0)) for start in range(40)
        )
        assert total(found) == pytest.approx(float(np.sum(expected)), rel=1e-12)
        shares = found.shares()
        assert shares["range"] == pytest.approx(expected[2] / np.sum(expected))
        assert sum(shares.values()) == pytest.approx(1.0)
        assert found.leader() == int(np.argmax(expected))

    def test_less_the_count_it_is_a_martingale_under_the_null(self) -> None:
        rng = np.random.default_rng(1)
        bets = ScoreBets([Shift(0.4, 0.8, 0.0)], [], symbol_effect=1, location_effect=1, scale_effect=1)
        ends = []
        for _ in range(4_000):
            found = detector(1e9)
            for at in range(12):
                later, first = bets.log_ratios(rng.standard_normal(2).tolist())
                found.update(later, 2, at=at, sums=(0.0,), onsets=first)
            ends.append(total(found))
        assert abs(np.mean(ends) - 24) < 4 * np.std(ends) / math.sqrt(len(ends))

    def test_run_length_is_kept(self) -> None:
        rng = np.random.default_rng(2)
        bets = ScoreBets(
            [Shift(1.0, 1.0, 0.0), Shift(-1.0, -3.0, 0.0)],
            [(1.5, 1.0)],
            symbol_effect=1,
            location_effect=1,
            scale_effect=1,
        )
        found = Detector([Bet("range", name, 1 / 3) for name in "abc"], 300.0, width=0)
        alarms = 0
        for at, score in enumerate(rng.standard_normal(60_000).tolist()):
            later, first = bets.log_ratios([score])
            if found.update(later, 1, at=at, sums=(), onsets=first):
                alarms += 1
                found.clear()
        assert 60 < alarms < 60_000 / 300

    def test_no_bets_find_nothing(self) -> None:
        found = Detector((), 100.0, width=1)
        assert not found.update([], 5, at=0, sums=(1.0,))
        assert found.statistic == -math.inf and found.count == 5 and found.shares() == {}

    def test_extreme_ratios_neither_overflow_nor_stick(self) -> None:
        found = detector()
        for ratio in (1e6, 1e6, -1e6, 0.0):
            found.update([ratio], 1, at=0, sums=(0.0,))
        assert total(found) == pytest.approx(1.0)
        assert all(math.isfinite(value) for value in found.state()["r"])


class TestChange:
    def test_is_where_the_cusum_left_zero(self) -> None:
        found = detector()
        for at in range(20):
            found.update([-0.5], 1, at=at, sums=(1.0,))
        for at in range(20, 26):
            found.update([0.7], 1, at=at, sums=(10.0,))
        assert found.change(0) == (20, 6, [60.0])

    def test_of_one_bet_is_not_that_of_another(self) -> None:
        found = Detector(BETS, 1e9, width=1)
        for at in range(10):
            found.update([-0.1, 0.1, 0.1 if at >= 7 else -0.1], 2, at=at, sums=(1.0,))
        assert [found.change(number)[:2] for number in range(3)] == [(9, 2), (0, 20), (7, 6)]


class TestState:
    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=30), st.data())
    def test_a_restart_anywhere_changes_nothing(self, ratios: list[list[float]], data: st.DataObject) -> None:
        stop = data.draw(st.integers(0, len(ratios)))
        through, before = (Detector(BETS, 50.0, width=1) for _ in range(2))
        for at, row in enumerate(ratios):
            through.update(row, 1, at=at, sums=(row[0],))
            if at < stop:
                before.update(row, 1, at=at, sums=(row[0],))
        after = Detector(BETS, 50.0, width=1)
        after.restore(json.loads(json.dumps(before.state(), allow_nan=False)))
        for at, row in enumerate(ratios[stop:], start=stop):
            after.update(row, 1, at=at, sums=(row[0],))
        assert after.state() == through.state()

    def test_of_other_bets_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the state holds 1 bets, this detector has 3"):
            Detector(BETS, 50.0, width=1).restore(detector().state())


class TestSigns:
    @settings(deadline=None, max_examples=50)
    @given(*[st.floats(-2, 2)] * 5)
    def test_ratios_have_mean_one_under_the_null(self, a: float, b: float, c: float, d: float, x: float) -> None:
        null, other = Line(a, b), Line(c, d)
        bets = SignBets([(other, null)], 1.0)
        up = 1 / (1 + math.exp(-(a + b * x)))
        ratio = {sign: math.exp(bets.log_ratios([(x, sign)])[0]) for sign in (1.0, -1.0)}
        assert up * ratio[1.0] + (1 - up) * ratio[-1.0] == pytest.approx(1.0)
        assert ratio[1.0] == pytest.approx((1 / (1 + math.exp(-(c + d * x)))) / up)

    def test_more_skill_than_the_null_is_not_held_against_it(self) -> None:
        bets = SignBets([(Line(0, 0), Line(0, 1)), (Line(0, -1), Line(0, 1))], 1.0)
        for x in (0.3, 1.0, 2.0):
            up = 1 / (1 + math.exp(-1.5 * x))
            ratios = [[math.exp(v) for v in bets.log_ratios([(x, sign)])] for sign in (1.0, -1.0)]
            assert all(up * rise + (1 - up) * fall < 1 for rise, fall in zip(*ratios, strict=True))

    def test_equal_outcomes_count_once(self) -> None:
        pair = [(Line(0, 0), Line(0, 1))]
        four = SignBets(pair, 4.0).log_ratios([(0.7, 1.0)] * 4)
        assert four == pytest.approx(SignBets(pair, 1.0).log_ratios([(0.7, 1.0)]))


class TestScores:
    def test_ratios_are_those_of_normal_densities(self) -> None:
        from scipy.stats import norm

        bets = ScoreBets([Shift(1.0, 3.0, 0.2)], [(2.0, 1.1)], symbol_effect=1, location_effect=1, scale_effect=1)
        scores = [0.4, -1.3, 2.2]
        later, first = bets.log_ratios(scores)

        def ratio(above: tuple[float, float], below: tuple[float, float]) -> float:
            return float((norm.logpdf(scores, *above) - norm.logpdf(scores, *below)).sum())

        assert later == pytest.approx([ratio((1, 1), (0.2, 1)), ratio((0, 2), (0, 1.1))])
        assert first == pytest.approx([ratio((3, 1), (0, 1)), ratio((0, 2), (0, 1.1))])

    def test_effects_divide(self) -> None:
        shifts, scales = [Shift(1.0, 3.0, 0.2)], [(2.0, 1.1)]
        plain = ScoreBets(shifts, scales, symbol_effect=1, location_effect=1, scale_effect=1).log_ratios([1.5])
        bets = ScoreBets(shifts, scales, symbol_effect=2, location_effect=3, scale_effect=5)
        later, first = bets.log_ratios([1.5])
        assert later == pytest.approx([plain[0][0] / 3, plain[0][1] / 5])
        assert first == pytest.approx([plain[1][0] / 2, plain[1][1] / 5])
