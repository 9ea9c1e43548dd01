"""Every parameter is read, and each stage declares the ones it reads."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from tests.conftest import ROOT, Project
from tradeloop.config import MODELS, Block, Params

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Read by the service and the command line, not by a stage; their own tests hold them.
ELSEWHERE = {"serving.max_symbols", "markets.clock", "markets.max_age", "serving.redis_url"}
ELSEWHERE |= {"serving.challenger_budget_ms", "serving.challenger_queue"}  # tests/serving/test_arms.py
# Read once there is a champion to compare with; tests/test_gate.py holds them.
ELSEWHERE |= {"gate.champion_tolerance", "gate.min_common_rows"}
# Read by the loop and by simulations, never by a stage; tests/loop, tests/monitoring and tests/simulation hold them.
LOOP = (
    *("outcomes", "performance", "degradation", "drift", "loop", "triggers", "retrain", "rollout", "adapt"),
    *("feedback", "paper", "simulate", "train.keep"),
    "stream",  # tests/stream
)
# Belong to sources and inputs that the default market does not have; tests/sources and tests/inputs hold them.
OTHER_SOURCES = ("markets.files", "markets.synthetic", "markets.calendar", "markets.interval", "markets.source",
                 "markets.inputs")  # fmt: skip
# Read where columns are chosen or searched for, which the default parameters do not ask for: tests/selection.
OFF = ("selection", "discovery")


def test_every_model_is_tuned_and_trained() -> None:
    for stage in ("tune", "train"):
        assert STAGES[stage]["matrix"]["model"] == list(MODELS), stage


def _blocks(model: type[BaseModel], prefix: str) -> dict[str, str]:
    """Return the dotted prefix of each block class below `model`, by class name."""
    found = {model.__name__: prefix}
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Block):
                found |= _blocks(kind, f"{prefix}.{name}" if prefix else name)
    return found


PREFIX = _blocks(Params, "")
LEAVES = {
    f"{prefix}.{name}".lstrip(".")
    for kind, prefix in PREFIX.items()
    for name in next(c for c in [Params, *Block.__subclasses__()] if c.__name__ == kind).model_fields
} - {value for value in PREFIX.values() if value}


def _reads(project: Project, stage: str) -> set[str]:
    pairs = json.loads((project.root.parent / "trace" / f"{stage}.json").read_text())
    return {f"{PREFIX[kind]}.{name}".lstrip(".") for kind, name in pairs} & LEAVES


def _instances(stage: str) -> list[str]:
    matrix = STAGES[stage].get("matrix", {})
    return [f"{stage}@{model}" for model in matrix.get("model", [])] or [stage]


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
@pytest.mark.parametrize("stage", [name for name in STAGES if name != "config"])
def test_a_stage_declares_what_it_reads(finished_project: Project, stage: str) -> None:
    for instance in _instances(stage):
        declared = [
            p.replace(".${market}", "").replace("${item.model}", instance.partition("@")[2])
            for p in STAGES[stage].get("params", [])
        ]
        missing = {leaf for leaf in _reads(finished_project, instance) if not _covered(leaf, declared)}
        assert not missing, f"{instance} reads {sorted(missing)}, which dvc.yaml does not declare"


def _covered(leaf: str, declared: list[str]) -> bool:
    return any(leaf == name or leaf.startswith(f"{name}.") for name in declared)


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
def test_no_parameter_is_documented_and_never_read(finished_project: Project) -> None:
    instances = [instance for stage in STAGES if stage != "config" for instance in _instances(stage)]
    read = set().union(*(_reads(finished_project, instance) for instance in instances))
    ignored = {leaf for leaf in LEAVES - read - ELSEWHERE if not _covered(leaf, [*OTHER_SOURCES, *LOOP, *OFF])}
    assert not ignored
