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
from tradeloop.lifecycle import SERVING, Lifecycle, ModelEvent, ModelRecord
from tradeloop.loop.actions import ACTOR, SAID, Action, Check, Done, carry_out, crowning
from tradeloop.loop.outbox import Outbox
from tradeloop.loop.paired import PairedTest
from tradeloop.loop.pairing import Pairing
from tradeloop.loop.trial import Standing, Trial, Watch
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
        self._standing_of = standing_of
        self._check = check
        self._horizon = horizon
        self._pairing = Pairing()
        self._trials: dict[str, Trial] = {}
        self._watch: Watch | None = None
        self._outbox = Outbox()
        self._champion: str | None = None
        self._standing = Standing()
        self._crowned: int | None = None  # number of the event that made it champion; None before the first look
        self._looked = False
        self._lifecycle = Lifecycle()
        self._changed_at: datetime | None = None

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
        if record.hash in self._trials or record.state in SERVING:
            return
        if found := {record.state, record.before} & {"rolled_back", "quarantined", "archived"}:
            state = found.pop()
            text = f"{record.version} is {state}: {record.reason}"
            self._outbox.say("refuse", record.hash, record.version, text, now=now)
            return
        if self._champion is None:
            if not self._outbox.crowning:
                text = f"no champion serves; {reason}"
                self._outbox.plan("promote", record.hash, record.version, text, now=now, evidence=evidence)
            return
        self._make_room(now)
        self._trials[record.hash] = Trial(record.hash, record.version, "admitted", managed=True, since=now)
        self._outbox.plan("stage", record.hash, record.version, reason, now=now, evidence=evidence)

    def observe(self, batch: Sequence[Resolved]) -> None:
        """Take in outcomes in the order of their numbers; they are sorted by feature time here."""
        models = self._models()
        for resolved in sorted(batch, key=_order):
            for moment in self._pairing.add(resolved, models):
                for model, test in self._tests():
                    if self._champion is not None and (pairs := moment.pairs(self._champion, model)):
                        test.update(pairs)
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
        return self._watch.evidence(self._config.alpha_watch) if self._watch else {}

    def evidence(self) -> dict[str, Any]:
        """Return every comparison that runs, as JSON."""
        trials = [
            {
                "model": trial.model,
                "version": trial.version,
                "phase": trial.phase,
                "managed": trial.managed,
                "since": trial.since.isoformat(),
                "rivals": trial.rivals,
                "test": trial.test.evidence() if trial.test else None,
            }
            for trial in self._trials.values()
        ]
        return {"champion": self._champion, "late": self._pairing.late, "trials": trials, "watch": self.watch}

    def state(self) -> dict[str, Any]:
        """Return all that must survive, as JSON."""
        return {
            "champion": self._champion,
            "crowned": self._crowned,
            "pairing": self._pairing.state(),
            "trials": [trial.state() for trial in self._trials.values()],
            "watch": self._watch.state() if self._watch else None,
            "outbox": self._outbox.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; the registry is read again at the next `advance`."""
        self._crown(state["champion"])
        self._crowned, self._looked = state["crowned"], False
        self._outbox.restore(state["outbox"])
        self._pairing.restore(state["pairing"])
        trials = [Trial.restore(each, self._test()) for each in state["trials"]]
        self._trials = {trial.model: trial for trial in trials}
        watched = state["watch"]
        self._watch = Watch.restore(watched, self._test(watch=True)) if watched else None

    def _look(self, now: datetime) -> None:
        """Bring this in line with the registry, if that has news."""
        news = self._registry.champion_version()
        if self._looked and news == self._outbox.news:
            return
        events = self._registry.events()
        self._lifecycle, self._looked = Lifecycle.of(events), True
        self._outbox.news = events[-1].seq if events else 0
        crown = crowning(events)
        if (crown.seq if crown else 0) != self._crowned:
            champion = self._lifecycle.champion
            self._outbox.recrown(champion.hash if champion else None, events, now)
            self._crown(champion.hash if champion else None)
            self._begin_anew(crown, now)
        self._look_at_watch(now)
        self._look_at_trials(now)

    def _crown(self, champion: str | None) -> None:
        self._champion = self._outbox.champion = champion
        try:
            self._standing = self._standing_of(champion) if champion else Standing()
        except BundleError:
            self._standing = Standing()

    def _begin_anew(self, crown: ModelEvent | None, now: datetime) -> None:
        """Compare with another champion; watch it, if it was promoted over one that can come back."""
        first, self._crowned = self._crowned is None, crown.seq if crown else 0
        self._watch = None
        self._trials = {model: trial for model, trial in self._trials.items() if model != self._champion}
        for trial in self._trials.values():
            trial.since, trial.rivals, trial.held = now, 1, False
            trial.test = self._test() if trial.test else None
        if crown is None or self._champion is None:
            return
        version = self._lifecycle.records[self._champion].version
        if not first and self._trials:
            text = f"{version} is champion now ({crown.kind} by {crown.actor}): comparisons begin anew"
            self._outbox.say("restart", self._champion, version, text, now=now)
        # Without a memory of its own a watch goes on only if the predecessor still shadows: else it may have ended.
        known = not first or self._lifecycle.route(crown.previous or "") is not None
        watched = crown.actor == ACTOR or self._config.watch == "all"
        if crown.kind == "promoted" and crown.previous is not None and known and watched:
            self._watch = Watch(crown.previous, self._lifecycle.records[crown.previous].version, now)

    def _look_at_watch(self, now: datetime) -> None:
        watch = self._watch
        if watch is None or self._outbox.about(watch.model):
            return
        staged = self._lifecycle.route(watch.model) is not None
        if staged and watch.test is None:
            watch.since, watch.test = now, self._test(watch=True)
        elif not staged and watch.test is None:
            reason = f"{watch.version} shadows the champion that was promoted over it"
            self._outbox.plan("watch", watch.model, watch.version, reason, now=now)
        elif not staged:
            self._watch = None
            self._note_leaving(self._lifecycle.records[watch.model], now)

    def _look_at_trials(self, now: datetime) -> None:
        watched = self._watch.model if self._watch else None
        for model, trial in list(self._trials.items()):
            route, record = self._lifecycle.route(model), self._lifecycle.records.get(model)
            if route is None and not self._outbox.about(model):
                del self._trials[model]
                if record is not None:
                    self._note_leaving(record, now)
            elif route is not None and record is not None:
                begins = trial.test is None or (route.mode == "canary" and trial.phase != "canary")
                trial.phase, trial.managed = route.mode, record.actor == ACTOR
                if begins:
                    trial.since, trial.test = now, self._test()
        for route in self._lifecycle.routes:
            if route.model not in self._trials and route.model != watched and not self._outbox.about(route.model):
                record = self._lifecycle.records[route.model]
                managed = record.actor == ACTOR
                self._trials[route.model] = Trial(
                    route.model, route.version, route.mode, managed, now, test=self._test()
                )
                text = f"{route.version}, staged as {route.mode} by {record.actor}, is compared with the champion"
                self._outbox.say("adopt", route.model, route.version, text, now=now)

    def _note_leaving(self, record: ModelRecord, now: datetime) -> None:
        if record.actor != ACTOR:
            text = f"{record.version} is {record.state} by {record.actor}: {record.reason}"
            self._outbox.say("left", record.hash, record.version, text, now=now)

    def _judge_champion(self, now: datetime) -> None:
        watch = self._watch
        if watch is None or watch.test is None or self._outbox.about(watch.model):
            return
        if found := watch.next(self._config, now):
            kind, reason = found
            self._outbox.plan(kind, watch.model, watch.version, reason, now=now, evidence=watch.test.evidence())

    def _judge_trials(self, now: datetime) -> None:
        running = [trial for trial in self._trials.values() if trial.managed and trial.test]
        for trial in running:
            trial.rivals = max(trial.rivals, len(running))
        watching = self._watch is not None and self._changed_at is None
        for trial in sorted(running, key=_promise, reverse=True):
            if trial.test is None or self._outbox.about(trial.model):
                continue
            if self._knows_the_past_only(trial.model):
                reason = f"trained before the change at {self._changed_at}, which it does not know"
                evidence = trial.test.evidence()
                self._outbox.plan("reject", trial.model, trial.version, reason, now=now, evidence=evidence)
                continue
            if found := trial.next(self._config, now, watching=watching):
                kind, reason = found
                evidence = {"rivals": trial.rivals, **trial.test.evidence()}
                share = self._config.canary if kind == "canary" else 0.0
                self._outbox.plan(kind, trial.model, trial.version, reason, now=now, evidence=evidence, share=share)
                if kind == "promote":
                    return

    def _knows_the_past_only(self, model: str) -> bool:
        if self._changed_at is None:
            return False
        try:
            trained = self._standing_of(model).train_end
        except BundleError:
            return False
        return trained is not None and trained < self._changed_at

    def _make_room(self, now: datetime) -> None:
        """Let the least promising challenger go, if there are as many as there may be."""
        here = [t for t in self._trials.values() if t.managed and not self._outbox.leaving(t.model)]
        if len(here) < self._config.challengers:
            return
        shadows = [trial for trial in here if trial.phase == "shadow" and not self._outbox.about(trial.model)]
        if shadows:
            least = min(shadows, key=_promise)
            evidence = least.test.evidence() if least.test else {}
            reason = f"the least promising of {len(here)} makes room for a new challenger"
            self._outbox.plan("supersede", least.model, least.version, reason, now=now, evidence=evidence)

    def _give_way(self, action: Action, problem: str) -> None:
        """Leave it at what a person has done, and try nothing else about this version."""
        trial = self._trials.get(action.model)
        if trial is not None and trial.phase == "admitted":
            del self._trials[action.model]
        elif trial is not None:
            trial.held = True
        if self._watch is not None and self._watch.model == action.model:
            self._watch = None
        text = f"{action.kind} of {action.version} was not carried out: {problem}"
        self._outbox.say("overridden", action.model, action.version, text, now=action.market_time)

    def _test(self, *, watch: bool = False) -> PairedTest:
        proven, base_rate = self._standing.proven, self._standing.base_rate
        return PairedTest(self._config, horizon=self._horizon, proven=proven, base_rate=base_rate, watch=watch)

    def _models(self) -> set[str]:
        return {*(model for model, _ in self._tests()), *([self._champion] if self._champion else [])}

    def _tests(self) -> list[tuple[str, PairedTest]]:
        found = [(trial.model, trial.test) for trial in self._trials.values() if trial.test]
        if self._watch is not None and self._watch.test is not None:
            found.append((self._watch.model, self._watch.test))
        return found


def _order(resolved: Resolved) -> tuple[float, int]:
    time = resolved.prediction.feature_time
    return (time.timestamp() if time else 0.0, resolved.seq)


def _promise(trial: Trial) -> float:
    return trial.test.e_value("better") if trial.test else 1.0
