"""Who is compared with the champion: challengers on trial, the predecessor on watch; kept in line with the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tradeloop.config import Rollout as Config
from tradeloop.errors import BundleError
from tradeloop.lifecycle import Lifecycle, ModelEvent, ModelRecord
from tradeloop.loop.actions import ACTOR
from tradeloop.loop.outbox import Outbox
from tradeloop.loop.paired import PairedTest
from tradeloop.loop.pairing import Pairing
from tradeloop.loop.trial import Standing, Trial, Watch
from tradeloop.monitoring.records import Resolved


class Comparisons:
    """The tests that run; what the registry says decides which, `outbox` gets what is to be done or said about it.

    Attributes
    ----------
    trials
        By model, in the order in which they began.
    watch
        Over a champion that was promoted; None if there is none.
    """

    def __init__(self, config: Config, outbox: Outbox, *, standing_of: Callable[[str], Standing], horizon: int) -> None:
        self._config = config
        self._outbox = outbox
        self._standing_of = standing_of
        self._horizon = horizon
        self._standing = Standing()
        self._pairing = Pairing()
        self.champion: str | None = None
        self.trials: dict[str, Trial] = {}
        self.watch: Watch | None = None

    def standing(self, model: str | None) -> Standing:
        """Return what a version has proven; of one whose bundle cannot be read nothing is known."""
        try:
            return self._standing_of(model) if model else Standing()
        except BundleError:
            return Standing()

    def admit(self, model: str, version: str, now: datetime) -> None:
        """Put a version on trial that is about to be staged."""
        self.trials[model] = Trial(model, version, "admitted", managed=True, since=now, test=self._test())

    def observe(self, batch: Sequence[Resolved]) -> None:
        """Take in outcomes, sorted by feature time here."""
        if self.champion is None:
            return
        tests = [(trial.model, trial.test) for trial in self.trials.values()]
        if self.watch is not None:
            tests.append((self.watch.model, self.watch.test))
        models = {self.champion, *(model for model, _ in tests)}
        for resolved in sorted(batch, key=_order):
            for moment in self._pairing.add(resolved, models):
                for model, test in tests:
                    if pairs := moment.pairs(self.champion, model):
                        test.update(pairs)

    def begin_anew(self, crown: ModelEvent | None, lifecycle: Lifecycle, now: datetime, *, first: bool) -> None:
        """Compare with another champion; watch it, if it was promoted over one that can come back.

        Parameters
        ----------
        crown
            The event that made it champion.
        first
            Whether nothing is remembered of any champion before it.
        """
        champion = lifecycle.champion
        self._crown(champion.hash if champion else None)
        self.watch = None
        self.trials = {model: trial for model, trial in self.trials.items() if model != self.champion}
        for trial in self.trials.values():
            trial.since, trial.rivals, trial.held, trial.test = now, 1, False, self._test()
        if crown is None or champion is None:
            return
        if not first and self.trials:
            text = f"{champion.version} is champion now ({crown.kind} by {crown.actor}): comparisons begin anew"
            self._outbox.say("restart", champion.hash, champion.version, text, now=now)
        # Without a memory of its own a watch goes on only if the predecessor still shadows: else it may have ended.
        known = not first or lifecycle.route(crown.previous or "") is not None
        watched = crown.actor == ACTOR or self._config.watch == "all"
        if crown.kind == "promoted" and crown.previous is not None and known and watched:
            version = lifecycle.records[crown.previous].version
            self.watch = Watch(crown.previous, version, now, self._test(watch=True))

    def follow(self, lifecycle: Lifecycle, now: datetime) -> None:
        """Follow who is staged and who is not."""
        self._follow_watch(lifecycle, now)
        self._follow_trials(lifecycle, now)
        watched = self.watch.model if self.watch else None
        for route in lifecycle.routes:
            if route.model not in self.trials and route.model != watched and not self._outbox.about(route.model):
                record = lifecycle.records[route.model]
                begun = (route.model, route.version, route.mode, record.actor == ACTOR, now)
                self.trials[route.model] = Trial(*begun, test=self._test())
                text = f"{route.version}, staged as {route.mode} by {record.actor}, is compared with the champion"
                self._outbox.say("adopt", route.model, route.version, text, now=now)

    def evidence(self) -> dict[str, Any]:
        """Return every comparison that runs, as JSON."""
        trials = [
            {
                **{name: getattr(trial, name) for name in ("model", "version", "phase", "managed", "rivals")},
                "since": trial.since.isoformat(),
                "test": trial.test.evidence(),
            }
            for trial in self.trials.values()
        ]
        watch = self.watch.evidence(self._config.alpha_watch) if self.watch else {}
        return {"champion": self.champion, "late": self._pairing.late, "trials": trials, "watch": watch}

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "champion": self.champion,
            "pairing": self._pairing.state(),
            "trials": [trial.state() for trial in self.trials.values()],
            "watch": self.watch.state() if self.watch else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._crown(state["champion"])
        self._pairing.restore(state["pairing"])
        trials = [Trial.restore(each, self._test()) for each in state["trials"]]
        self.trials = {trial.model: trial for trial in trials}
        watched = state["watch"]
        self.watch = Watch.restore(watched, self._test(watch=True)) if watched else None

    def _crown(self, champion: str | None) -> None:
        self.champion = champion
        self._standing = self.standing(champion)

    def _follow_watch(self, lifecycle: Lifecycle, now: datetime) -> None:
        watch = self.watch
        if watch is None or self._outbox.about(watch.model):
            return
        staged = lifecycle.route(watch.model) is not None
        if staged:
            watch.begun = True
        elif not watch.begun:
            reason = f"{watch.version} shadows the champion that was promoted over it"
            self._outbox.plan("watch", watch.model, watch.version, reason, now=now)
        else:
            self.watch = None
            self._note_leaving(lifecycle.records[watch.model], now)

    def _follow_trials(self, lifecycle: Lifecycle, now: datetime) -> None:
        for model, trial in list(self.trials.items()):
            route, record = lifecycle.route(model), lifecycle.records.get(model)
            if route is None and not self._outbox.about(model):
                del self.trials[model]
                if record is not None:
                    self._note_leaving(record, now)
            elif route is not None and record is not None:
                if route.mode == "canary" and trial.phase != "canary":
                    trial.since, trial.test = now, self._test()
                trial.phase, trial.managed = route.mode, record.actor == ACTOR

    def _note_leaving(self, record: ModelRecord, now: datetime) -> None:
        if record.actor != ACTOR:
            text = f"{record.version} is {record.state} by {record.actor}: {record.reason}"
            self._outbox.say("left", record.hash, record.version, text, now=now)

    def _test(self, *, watch: bool = False) -> PairedTest:
        proven, base_rate = self._standing.proven, self._standing.base_rate
        return PairedTest(self._config, horizon=self._horizon, proven=proven, base_rate=base_rate, watch=watch)


def _order(resolved: Resolved) -> tuple[float, int]:
    time = resolved.prediction.feature_time
    return (time.timestamp() if time else 0.0, resolved.seq)
