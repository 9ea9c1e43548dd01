from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tests.conftest import ROOT
from tradeloop.config import MODELS, Params, load_params, parse_interval
from tradeloop.errors import ConfigError

SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def _changed(tmp_path: Path, dotted: str, value: Any) -> Path:
    content = deepcopy(SHIPPED)
    *blocks, key = dotted.split(".")
    block = content
    for part in blocks:
        block = block.setdefault(part, {})
    block[key] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_shipped_parameters_are_valid_and_frozen() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.active is params.markets["us_daily"]
    with pytest.raises(Exception, match="frozen"):
        params.seed = 1  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("train.xgboost.max_dept", 3, "unknown key 'train.xgboost.max_dept'; did you mean 'max_depth'?"),
        ("trian", {}, "unknown key 'trian'; did you mean 'train'?"),
        ("markets.us_daily.calender", "XNYS", "did you mean 'calendar'?"),
        ("split.holdout", 2, "split.holdout: input should be less than 0.9, got 2"),
        ("split.folds", "many", "split.folds: input should be a valid integer"),
        ("labels.horizon", 0, "labels.horizon: input should be greater than or equal to 1, got 0"),
        ("evaluate.cost_bps", float("nan"), "evaluate.cost_bps: input should be a finite number"),
        ("markets.us_daily.interval", "1w", "got '1w'"),
        ("markets.us_daily.symbols", ["AAPL", "AAPL"], "each symbol may be named once"),
        ("markets.us_daily.symbols", ["../etc"], "a symbol is 1 to 32 letters"),
        ("markets.us_daily.symbols", [], "at least 1 item"),
        ("market", "mars", "market must be one of"),
        ("tune.mlp", ["dropot"], "did you mean 'dropout'?"),
        ("serving.max_symbols", 10_001, "less than or equal to 10000, got 10001"),
    ],
)
def test_bad_value_is_one_line_that_names_it(tmp_path: Path, dotted: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_params(_changed(tmp_path, dotted, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_problems_are_counted(tmp_path: Path) -> None:
    content = deepcopy(SHIPPED) | {"a": 1, "b": 2, "c": 3}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"\(and 2 more\)"):
        load_params(path)


@pytest.mark.parametrize("content", ["[1, 2]", "market: [", "\x00", ""])
def test_unreadable_file_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml is missing"):
        load_params(tmp_path / "params.yaml")


def _leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    return {f"{prefix}{name}" for name in model.model_fields}


@pytest.mark.parametrize("block", [name for name in Params.model_fields if name not in ("market", "seed", "markets")])
def test_every_parameter_is_written_out_in_params_yaml(block: str) -> None:
    """An operator can see each number without reading the code."""
    model = Params.model_fields[block].annotation
    assert isinstance(model, type) and issubclass(model, BaseModel)
    assert set(SHIPPED[block]) == _leaves(model)
    for name in MODELS if block == "train" else ():
        inner = model.model_fields[name].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        assert set(SHIPPED[block][name]) == _leaves(inner)


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900), ("1h", 3600), ("5d", 432_000)])
def test_interval(text: str, seconds: int) -> None:
    assert parse_interval(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0m", "-1h", "1.5h", "h", "15 m"])
def test_interval_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        parse_interval(text)
