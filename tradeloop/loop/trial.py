"""A comparison that runs: a challenger on trial, or the watch over a champion that the loop promoted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from tradeloop.config import TARGETS, Rollout, Target, parse_interval
from tradeloop.loop.paired import PairedTest

if TYPE_CHECKING:
    from tradeloop.bundle import Bundle

Phase = Literal["admitted", "shadow", "canary", "ab"]
Next = Literal["canary", "promote", "reject", "give_up"]


@dataclass(frozen=True)
class Standing:
    """What a version has proven on its holdout, the share of up there, and the time of its newest training row.

    Unknown: everything is taken as proven.
    """

    proven: Collection[Target] = TARGETS
    base_rate: float | None = None
    train_end: datetime | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return the standing of a bundle."""
        proven = tuple(target for target in TARGETS if bundle.manifest.edge_proven.get(target))
        return cls(proven, bundle.reference.direction.base_rate, bundle.manifest.train_end)


@dataclass
class Trial:
    """A challenger against the champion.

    Attributes
    ----------
    managed
        Whether the loop staged it; of what a person staged it only says how it does.
    since
        Market time at which this comparison began.
    rivals
        The most challengers that were on trial beside it, itself included: so many share the error rate.
    held
        Whether a decision about it could not be carried out: nothing more is decided against this champion.
    """

    model: str
    version: str
    phase: Phase
    managed: bool
    since: datetime
    test: PairedTest
    rivals: int = 1
    held: bool = False

    def next(self, config: Rollout, now: datetime, *, watching: bool) -> tuple[Next, str] | None:
        """Return what follows from the evidence, and why; None: go on.

        Parameters
        ----------
        watching
            Whether the champion is itself still on watch: then nothing is promoted.
        """
        if not self.managed or self.held or self.phase not in ("shadow", "canary"):
            return None
        verdict = self.test.verdict(config.alpha, self.rivals)
        if verdict.kind == "worse":
            return "reject", verdict.reason
        if self.phase == "canary" and self.test.pairs >= config.canary_outcomes:
            return None if watching else ("promote", f"not worse as canary on {self.test.pairs} pairs")
        ripe = self.phase == "shadow" and self.test.pairs >= config.min_outcomes
        if ripe and verdict.kind == "better":
            step: Next = "canary" if config.canary > 0 else "promote"
            return None if watching else (step, verdict.reason)
        if self.test.pairs >= config.max_outcomes:
            return "give_up", f"{verdict.reason}; max_outcomes is {config.max_outcomes}"
        if now - self.since >= parse_interval(config.max_age):
            return "give_up", f"{verdict.reason}; it began {self.since:%Y-%m-%d %H:%M}, max_age is {config.max_age}"
        return None

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "since": self.since.isoformat(), "test": self.test.state()}

    @classmethod
    def restore(cls, state: Mapping[str, Any], test: PairedTest) -> Self:
        """Return the trial that `state` was taken of; `test` is an empty one of its kind."""
        kept = {"since": datetime.fromisoformat(state["since"]), "test": test.restore(state["test"])}
        return cls(**{**state, **kept})


@dataclass
class Watch:
    """The predecessor of a champion, ready to come back; `begun` is false until it has been staged."""

    model: str
    version: str
    since: datetime
    test: PairedTest
    begun: bool = False

    def next(self, config: Rollout, now: datetime) -> tuple[Literal["rollback", "end_watch"], str] | None:
        """Return what follows from the evidence, and why; None: go on."""
        verdict = self.test.verdict(config.alpha_watch)
        if verdict.kind == "better":
            return "rollback", f"the predecessor is {verdict.reason}"
        age = now - self.since
        judged = self.test.pairs >= config.watch_outcomes and age >= parse_interval(config.watch_for)
        if judged:
            return "end_watch", f"not worse than its predecessor on {self.test.pairs} pairs"
        if age >= parse_interval(config.max_age):
            return "end_watch", f"only {self.test.pairs} pairs came in {config.max_age}"
        return None

    def evidence(self, alpha: float) -> dict[str, Any]:
        """Return how the champion does against its predecessor, ``worse`` if that is proven."""
        worse = self.test.verdict(alpha).kind == "better"
        return {"predecessor": self.version, "since": self.since.isoformat(), "worse": worse, **self.test.evidence()}

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "since": self.since.isoformat(), "test": self.test.state()}

    @classmethod
    def restore(cls, state: Mapping[str, Any], test: PairedTest) -> Self:
        """Return the watch that `state` was taken of; `test` is an empty one of its kind."""
        kept = {"since": datetime.fromisoformat(state["since"]), "test": test.restore(state["test"])}
        return cls(**{**state, **kept})
