"""The rollout: challengers are proved on live outcomes and promoted; a champion worse than the last is rolled back.

1. `admit` a version that passed the gate: it is staged as shadow, forecasts every question and answers none.
2. `observe` outcomes: forecasts of the same symbol and bar become pairs of the paired tests.
3. `advance`: what the evidence says, as actions with their reasons. Nothing is done yet.
4. The caller stores the actions' decisions and this object's `state` in one transaction, then lets `execute` do them.

The registry is the truth about who serves and who watches; whatever it says that was not decided here was done by a
person, and stands. Every change of the champion, by anybody, begins all comparisons anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tradeloop.config import Rollout as Config
from tradeloop.errors import BundleError, RegistryError, SchemaMismatch
from tradeloop.lifecycle import SERVING, Lifecycle
from tradeloop.loop.actions import SAID, Action, Check, Done, carry_out, crowning
from tradeloop.loop.comparisons import Comparisons
from tradeloop.loop.outbox import Outbox
from tradeloop.loop.trial import Next, Standing, Trial
from tradeloop.monitoring.records import Resolved
from tradeloop.registry import Registry


class Rollout:
    """The challengers and the watch of one market; see the module.

    Parameters
    ----------
    standing_of
        Returns what a version, by its hash, has proven on its holdout; `Standing.of` takes it from a bundle.
    check
        Asked before a version takes part; see `actions.Check`.
    horizon
        Bars of a label.

    Attributes
    ----------
    unsaved
        Whether the registry had news since `state` was last asked for: store it, or evidence is lost in a crash.
    """

    def __init__(
        self,
        registry: Registry,
        config: Config,
        *,
        standing_of: Callable[[str], Standing],
        check: Check = lambda _: {},
        horizon: int = 1,
    ) -> None:
        self._registry = registry
        self._config = config
        self._check = check
        self._outbox = Outbox()
        self._running = Comparisons(config, self._outbox, standing_of=standing_of, horizon=horizon)
        self._crowned: int | None = None  # number of the event that made the champion; None before the first look
        self._lifecycle = Lifecycle()
        self._looked = False
        self._changed_at: datetime | None = None
        self.unsaved = False

    def market_changed(self, at: datetime | None) -> None:
        """Tell that the champion's skill is lost since `at`; None: it is not, or nobody knows since when.

        As long as that stands, challengers that were trained before it are let go: what speaks for them was measured
        on a market that is no more. And a champion's watch keeps nobody from taking its place.
        """
        self._changed_at = at

    def admit(self, name: str, *, now: datetime, reason: str, evidence: Mapping[str, Any] | None = None) -> None:
        """Take a version that passed the gate on trial; where there is no champion yet it becomes that.

        One that is on trial already, or serves, is left alone; one that was rolled back, quarantined or archived is
        refused. Both the staging and the refusal come with the next `advance`.
        """
        self._look(now)
        try:
            record = self._lifecycle.find(name)
        except RegistryError as error:
            self._outbox.say("refuse", name[:64], name[:64], str(error), now=now)
            return
        if record.hash in self._running.trials or record.state in SERVING:
            return
        if found := {record.state, record.before} & {"rolled_back", "quarantined", "archived"}:
            state = found.pop()
            text = f"{record.version} is {state}: {record.reason}"
            self._outbox.say("refuse", record.hash, record.version, text, now=now)
            return
        if self._running.champion is None:
            if not self._outbox.crowning:
                text = f"no champion serves; {reason}"
                self._outbox.plan("promote", record.hash, record.version, text, now=now, evidence=evidence)
            return
        self._make_room(now)
        self._running.admit(record.hash, record.version, now)
        self._outbox.plan("stage", record.hash, record.version, reason, now=now, evidence=evidence)

    def observe(self, batch: Sequence[Resolved]) -> None:
        """Take in outcomes in the order of their numbers; they are sorted by feature time here."""
        self._running.observe(batch)
        self._outbox.seq = max([self._outbox.seq, *(resolved.seq for resolved in batch)])

    def advance(self, now: datetime) -> list[Action]:
        """Return what is to be said and done at the market's time `now`, what is still undone included."""
        self._look(now)
        if not self._outbox.crowning:
            self._judge_champion(now)
        if not self._outbox.crowning:
            self._judge_trials(now)
        return self._outbox.take()

    def execute(self, action: Action) -> Done:
        """Do what `advance` returned; doing it again changes nothing.

        What a person has made impossible since is not done: ``overridden`` says why, and so does the next `advance`.
        """
        if action.kind in SAID:
            return Done(action, changed=False)
        try:
            changed, problem = carry_out(self._registry, action, self._check), None
        except (RegistryError, BundleError, SchemaMismatch) as error:
            changed, problem = False, str(error)
        self._outbox.remove(action)
        self._looked = False
        if problem is not None:
            self._give_way(action, problem)
        return Done(action, changed, problem)

    @property
    def watch(self) -> dict[str, Any]:
        """How the champion does against its predecessor, with ``worse`` if that is proven; empty without a watch."""
        watch = self._running.watch
        return watch.evidence(self._config.alpha_watch) if watch else {}

    def evidence(self) -> dict[str, Any]:
        """Return every comparison that runs, as JSON."""
        return self._running.evidence()

    def state(self) -> dict[str, Any]:
        """Return all that must survive, as JSON."""
        self.unsaved = False
        return {"crowned": self._crowned, "running": self._running.state(), "outbox": self._outbox.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; the registry is read again at the next `advance`."""
        self._crowned, self._looked = state["crowned"], False
        self._running.restore(state["running"])
        self._outbox.restore(state["outbox"])
        self._outbox.champion = self._running.champion

    def _look(self, now: datetime) -> None:
        """Bring this in line with the registry, if that has news."""
        news = self._registry.champion_version()
        if self._looked and news == self._outbox.news:
            return
        events = self._registry.events()
        self._lifecycle, self._looked, self.unsaved = Lifecycle.of(events), True, True
        self._outbox.news = events[-1].seq if events else 0
        crown = crowning(events)
        number = crown.seq if crown else 0
        if number != self._crowned:
            champion = self._lifecycle.champion
            self._outbox.recrown(champion.hash if champion else None, events, now)
            self._running.begin_anew(crown, self._lifecycle, now, first=self._crowned is None)
            self._crowned = number
        self._running.follow(self._lifecycle, now)

    def _judge_champion(self, now: datetime) -> None:
        watch = self._running.watch
        if watch is None or not watch.begun or self._outbox.about(watch.model):
            return
        if found := watch.next(self._config, now):
            kind, reason = found
            self._outbox.plan(kind, watch.model, watch.version, reason, now=now, evidence=watch.test.evidence())

    def _judge_trials(self, now: datetime) -> None:
        running = [trial for trial in self._running.trials.values() if trial.managed]
        for trial in running:
            trial.rivals = max(trial.rivals, len(running))
        watching = self._running.watch is not None and self._changed_at is None
        for trial in sorted(running, key=_promise, reverse=True):
            if self._outbox.about(trial.model):
                continue
            if self._knows_the_past_only(trial.model):
                reason = f"trained before the change at {self._changed_at}, which it does not know"
                found: tuple[Next, str] | None = ("reject", reason)
            else:
                found = trial.next(self._config, now, watching=watching)
            if found:
                kind, reason = found
                evidence = {"rivals": trial.rivals, **trial.test.evidence()}
                share = self._config.canary if kind == "canary" else 0.0
                self._outbox.plan(kind, trial.model, trial.version, reason, now=now, evidence=evidence, share=share)
                if kind == "promote":
                    return

    def _knows_the_past_only(self, model: str) -> bool:
        if self._changed_at is None:
            return False
        trained = self._running.standing(model).train_end
        return trained is not None and trained < self._changed_at

    def _make_room(self, now: datetime) -> None:
        """Let the least promising challenger go, if there are as many as there may be."""
        here = [t for t in self._running.trials.values() if t.managed and not self._outbox.leaving(t.model)]
        if len(here) < self._config.challengers:
            return
        shadows = [trial for trial in here if trial.phase == "shadow" and not self._outbox.about(trial.model)]
        if shadows:
            least = min(shadows, key=_promise)
            reason = f"the least promising of {len(here)} makes room for a new challenger"
            evidence = least.test.evidence()
            self._outbox.plan("supersede", least.model, least.version, reason, now=now, evidence=evidence)

    def _give_way(self, action: Action, problem: str) -> None:
        """Leave it at what a person has done, and try nothing else about this version."""
        trials, watch = self._running.trials, self._running.watch
        trial = trials.get(action.model)
        if trial is not None and trial.phase == "admitted":
            del trials[action.model]
        elif trial is not None:
            trial.held = True
        if watch is not None and watch.model == action.model:
            self._running.watch = None
        text = f"{action.kind} of {action.version} was not carried out: {problem}"
        self._outbox.say("overridden", action.model, action.version, text, now=action.market_time)


def _promise(trial: Trial) -> float:
    return trial.test.e_value("better")
