"""When a model is left alone, and when it gets another chance."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.serving.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker


@dataclass
class Hand:
    """A clock that is set by hand, and a breaker on it with a budget of a second."""

    now: float = 100.0
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = Breaker(1.0, lambda: self.now)

    def open(self) -> None:
        for _ in range(FAILURES):
            self.breaker.failed("broken")


def test_it_opens_with_failures_in_a_row_only() -> None:
    hand = Hand()
    for _ in range(5):
        assert [hand.breaker.failed("broken") for _ in range(FAILURES - 1)] == [False] * (FAILURES - 1)
        assert hand.breaker.closed and hand.breaker.allows()
        assert not hand.breaker.succeeded(0.1)
    hand.open()
    assert not hand.breaker.closed
    assert hand.breaker.reason == "broken"


def test_what_takes_too_long_is_a_failure() -> None:
    hand = Hand()
    assert [hand.breaker.succeeded(seconds) for seconds in (1.1, 1.1, 1.0, 1.1, 1.1)] == [False] * 5
    assert hand.breaker.succeeded(1.1)
    assert hand.breaker.reason == "a forecast took 1.1 s, the budget is 1 s"


def test_one_trial_after_each_pause_and_a_good_one_closes() -> None:
    hand = Hand()
    hand.open()
    assert not hand.breaker.allows()
    hand.now += FIRST_PAUSE
    assert [hand.breaker.allows() for _ in range(3)] == [True, False, False]
    assert not hand.breaker.closed  # a trial under way does not make it trusted
    hand.breaker.succeeded(0.1)
    assert hand.breaker.closed and hand.breaker.reason is None
    hand.open()
    hand.now += FIRST_PAUSE
    assert hand.breaker.allows()  # the pause begins anew


def test_each_trial_that_fails_doubles_the_pause() -> None:
    hand = Hand()
    hand.open()
    pause = FIRST_PAUSE
    for _ in range(12):
        hand.now += pause - 0.01
        assert not hand.breaker.allows()
        hand.now += 0.01
        assert hand.breaker.allows()
        assert not hand.breaker.failed("still broken")  # it was open before
        pause = min(2 * pause, LONGEST_PAUSE)
    assert pause == LONGEST_PAUSE


@settings(deadline=None)
@given(st.lists(st.one_of(st.just("fail"), st.just("fine"), st.just("slow"), st.floats(0, 400)), max_size=60))
def test_it_heals_whatever_happened(history: list[str | float]) -> None:
    hand = Hand()
    for step in history:
        if isinstance(step, float):
            hand.now += step
        elif hand.breaker.allows():
            if step == "fail":
                hand.breaker.failed("broken")
            else:
                hand.breaker.succeeded(0.1 if step == "fine" else 2.0)
    hand.now += LONGEST_PAUSE
    assert hand.breaker.allows()
    hand.breaker.succeeded(0.1)
    assert hand.breaker.closed
