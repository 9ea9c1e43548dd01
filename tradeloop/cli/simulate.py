"""``tradeloop simulate``: a market replayed on a virtual clock, by one policy or several side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeloop.cli.output import Json, project, show_json, show_table
from tradeloop.config import Params, parse_interval
from tradeloop.errors import ConfigError

if TYPE_CHECKING:
    from tradeloop.simulation.driver import Plan, Policy, Stage
    from tradeloop.simulation.record import Record
    from tradeloop.simulation.world import World


class PolicyName(StrEnum):
    """What decides when models change."""

    loop = "loop"
    static = "static"
    scheduled = "scheduled"
    always = "always"


class Shape(StrEnum):
    """Drifts that the synthetic market can plant."""

    sign_flip = "sign_flip"
    fading_edge = "fading_edge"
    new_regime = "new_regime"
    volatility_jump = "volatility_jump"


def simulate(
    policy: Annotated[
        list[PolicyName] | None, typer.Option(help="Repeat to compare; default: loop, scheduled and static.")
    ] = None,
    market: Annotated[str | None, typer.Option(help="One of params.yaml's markets; default: the active one.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: params.yaml's.")] = None,
    bars: Annotated[int | None, typer.Option(min=1, help="Stop after so many bars behind the warm-up.")] = None,
    drift: Annotated[Shape | None, typer.Option(help="Synthetic market only: the concept drifts.")] = None,
    drift_after: Annotated[int, typer.Option(min=1, help="Bars between the warm-up and the drift.")] = 1000,
    accuracy: Annotated[
        float | None, typer.Option(min=0.5, max=0.99, help="Synthetic market only: the best possible accuracy.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep each run's answers, events and database here.")] = None,
    as_json: Json = False,
) -> None:
    """Replay a market through the loop's own code on a virtual clock, deterministic by seed."""
    from tradeloop.simulation.report import summary
    from tradeloop.simulation.world import build_world

    layout, params = project()
    params = _parameters(params, market, seed, bars=bars, drift=drift, drift_after=drift_after, accuracy=accuracy)
    world = build_world(params, root=layout.root)
    plan = _plan(params, world, bars)
    drift_step = _drift_step(params, world) if drift is not None else None
    found: dict[str, Any] = {}
    for name in dict.fromkeys(policy or [PolicyName.loop, PolicyName.scheduled, PolicyName.static]):
        with tempfile.TemporaryDirectory() as temporary:
            home = (out or Path(temporary)) / name.value
            if home.exists():
                raise ConfigError(f"--out must name a folder without a run of {name.value}, {home} is there already")
            record = _run(params, world, plan, name, home=home, quiet=as_json)
            found[name.value] = summary(record, params.evaluate, seed=params.seed, drift=drift_step)
    if as_json:
        show_json({"market": params.market, "seed": params.seed, "drift_step": drift_step, "policies": found})
        return
    _show(params, found)


def _run(params: Params, world: World, plan: Plan, name: PolicyName, *, home: Path, quiet: bool) -> Record:
    from tqdm import tqdm

    from tradeloop.simulation.driver import simulate as run

    total = (plan.stop or len(world.times)) - plan.warm_up
    with tqdm(total=total, desc=name.value, unit="bar", disable=quiet) as bar:
        return run(params, world, plan, _policy(params, name), home=home, progress=bar.update)


def _policy(params: Params, name: PolicyName) -> Callable[[Stage], Policy]:
    from tradeloop.simulation.policies import Scheduled, Static

    config = params.simulate
    window = parse_interval(config.window) if config.window else None
    if name is PolicyName.loop:
        from tradeloop.simulation.looping import Looping

        return Looping
    if name is PolicyName.scheduled:
        return lambda _: Scheduled(parse_interval(config.schedule), window)
    if name is PolicyName.always:
        return lambda _: Scheduled(parse_interval("1d"), window)
    return lambda _: Static()


def _parameters(
    params: Params,
    market: str | None,
    seed: int | None,
    *,
    bars: int | None,
    drift: Shape | None,
    drift_after: int,
    accuracy: float | None,
) -> Params:
    """Return the parameters with what the command line changes."""
    from tradeloop.features import feature_lookback

    raw = params.model_dump()
    if market is not None:
        raw["market"] = market
    if seed is not None:
        raw["seed"] = seed
    active = raw["markets"].get(raw["market"])
    if drift is not None or accuracy is not None:
        if active is None or active["source"] != "synthetic":
            raise ConfigError(f"--drift and --accuracy need a synthetic market, {raw['market']} is none")
        planted = active["synthetic"]
        # The warm-up counts bars with all features; those of the lookback come before it.
        first = params.simulate.warm_up + feature_lookback(Params.model_validate(raw))
        if drift is not None:
            planted |= {"drift": drift.value, "drift_bar": first + drift_after}
        if accuracy is not None:
            planted["bayes_accuracy"] = accuracy
        if bars is not None:
            planted["bars"] = first + bars + 1
    return Params.model_validate(raw)


def _plan(params: Params, world: World, bars: int | None) -> Plan:
    from tradeloop.simulation.driver import Plan

    config = params.simulate
    stop = None if bars is None else min(config.warm_up + bars, len(world.times))
    return Plan(config.warm_up, stop, config.turn_every, tuple(config.models))


def _drift_step(params: Params, world: World) -> int:
    """Return the first step whose forecast the drift concerns: that made at the close before the drifting bar."""
    import numpy as np

    bars = next(iter(world.bars.values()))
    drift_bar = params.active.synthetic.drift_bar
    assert drift_bar is not None
    return int(np.searchsorted(world.times, bars.timestamp[drift_bar - 1]))


def _show(params: Params, found: dict[str, Any]) -> None:
    rows = []
    for name, run in found.items():
        for period, scores in run["periods"].items():
            if not scores["rows"]:
                continue
            direction, spread = scores["direction"], scores["range"]
            rows.append(
                (
                    name,
                    period,
                    scores["rows"],
                    _score(direction["accuracy"]),
                    f"{direction['majority']:.3f}",
                    _score(direction["auc"]),
                    _score(spread["r2"]),
                    f"{spread['coverage']:.3f}",
                    len(run["trainings"]),
                    sum(change["kind"] == "promoted" for change in run["changes"]),
                    f"{run['training_cpu_seconds']:.1f}",
                )
            )
    columns = ("policy", "period", "rows", "accuracy", "majority", "AUC", "range R²", "coverage", "trainings")
    show_table((*columns, "promotions", "CPU s"), rows, title=f"market {params.market}, seed {params.seed}")


def _score(score: dict[str, float | None]) -> str:
    if score["value"] is None:
        return "undefined"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
