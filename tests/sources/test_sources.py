from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tradeloop.config import Market, load_params
from tradeloop.errors import ConfigError, DataError
from tradeloop.sources import open_source, registered

MARKETS = load_params(Path(__file__).parents[2] / "params.yaml").markets


def test_every_module_is_a_source_that_the_parameters_know() -> None:
    assert registered() == tuple(sorted(get_args(Market.model_fields["source"].annotation)))


@pytest.mark.parametrize("name", registered())
def test_each_source_opens_under_its_modules_name(name: str, tmp_path: Path) -> None:
    market = Market.model_construct(source=name, symbols=["X"], calendar="24/7", interval="1h")
    source = open_source(market, root=tmp_path, seed=7)
    assert (source.name, source.root, source.seed) == (name, tmp_path, 7)
    assert type(source).__module__ == f"tradeloop.sources.{name}"


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    market = MARKETS["synthetic"].model_copy(update={"source": "yahoo"})
    with pytest.raises(ConfigError, match=r"one of \['bundled', 'files', 'synthetic'\], got 'yahoo'"):
        open_source(market, root=Path(), seed=0)


def test_a_source_without_context_says_so() -> None:
    source = open_source(MARKETS["synthetic"], root=Path(), seed=0)
    with pytest.raises(DataError, match="source 'synthetic' has no context series, 'SP500' was asked for"):
        source.read_context("SP500")
