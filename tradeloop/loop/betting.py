"""Evidence as money: what a gambler would own who bets, at fair odds, that a mean is above zero.

Under the null hypothesis no strategy is expected to gain, so a capital that has grown c-fold is evidence against it
that chance gives at most once in c times, whenever one looks (Ville 1939; Waudby-Smith and Ramdas 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

FRACTIONS = tuple(0.9 / 1.8**k for k in range(6))
"""Shares of its capital that each gambler stakes, always the same: 0.9, 0.5, 0.28, 0.15, 0.086, 0.048."""

CEILING = 1e12  # beyond any threshold; giving money away keeps an e-process valid, and the number finite


class Capital:
    """Six gamblers who bet that observations in [-1, 1] have a mean above 0, each with a constant share of its capital.

    ``K(t) = Π (1 + f x(t))``, averaged over the shares f. Because a share never changes, the bound holds for the mean
    so far, not only for a null that is true at every single moment: with conditional means μ(i) of the observations,
    ``Π (1 + f μ(i)) ≤ exp(f Σ μ(i)) ≤ 1`` as long as their average is not above zero (compare Choe and Ramdas 2024).

    Parameters
    ----------
    enter
        0, or the share of the cash that the gamblers take to the table at each observation, having begun with half of
        all. The capital then answers quickly to a change that comes late, and the null is the stronger one: the mean is
        at no time above zero.

    Examples
    --------
    >>> capital = Capital()
    >>> for _ in range(20):
    ...     capital.update(0.3)
    >>> capital.value > 20
    True
    """

    __slots__ = ("_enter", "cash", "stakes")

    def __init__(self, enter: float = 0.0) -> None:
        self._enter = enter
        self.cash = 0.5 if enter else 0.0
        self.stakes = [(1.0 - self.cash) / len(FRACTIONS)] * len(FRACTIONS)

    @property
    def value(self) -> float:
        """What there is, 1 at first: the e-value."""
        return self.cash + sum(self.stakes)

    @property
    def secured(self) -> float:
        """What there is at least, whatever comes of a bet that has been placed and not yet decided."""
        return self.cash + sum(stake * (1.0 - f) for stake, f in zip(self.stakes, FRACTIONS, strict=True))

    def update(self, x: float) -> None:
        """Settle the bets on the next observation, in [-1, 1]."""
        if self._enter:
            entering = self._enter * self.cash / len(FRACTIONS)
            self.cash *= 1.0 - self._enter
            self.stakes = [stake + entering for stake in self.stakes]
        stakes = [stake * (1.0 + f * x) for stake, f in zip(self.stakes, FRACTIONS, strict=True)]
        total = sum(stakes)
        self.stakes = stakes if total <= CEILING else [stake * CEILING / total for stake in stakes]

    def state(self) -> list[float]:
        """Return cash and stakes."""
        return [self.cash, *self.stakes]

    def restore(self, state: Sequence[Any]) -> Self:
        """Take over what `state` returned."""
        self.cash, *self.stakes = (float(value) for value in state)
        return self
