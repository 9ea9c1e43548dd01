from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.features.conftest import market_params
from tests.inputs.conftest import GOOD
from tradeloop.config import INPUT_KINDS, InputFiles, Market
from tradeloop.errors import ConfigError
from tradeloop.features import registered
from tradeloop.inputs.contract import KINDS, all_columns, input_columns, unit_of


def market(**inputs: InputFiles) -> Market:
    return market_params("btc_15m").active.model_copy(update={"inputs": inputs})


def test_every_kind_that_params_may_name_has_a_contract() -> None:
    assert tuple(KINDS) == INPUT_KINDS == tuple(GOOD)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_come_from_columns_that_there_are(kind: str) -> None:
    for name, output in KINDS[kind].outputs.items():
        assert set(output.reads) <= set(KINDS[kind].columns) and output.reads, name
    for name, column in KINDS[kind].columns.items():
        assert not isinstance(column.otherwise, str) or column.otherwise in KINDS[kind].columns, name
        assert column.rule.text.startswith(("be ", "not ")), name


def test_units_are_found_by_name() -> None:
    names = ("book.ask_price", "book.order_flow", "liquidations.long", "events.hours_until")
    assert [unit_of(name) for name in names] == ["price", "size", "money", "hours"]
    with pytest.raises(KeyError):
        unit_of("book.mid")


def test_a_market_has_the_columns_of_its_kinds() -> None:
    assert input_columns(market()) == frozenset()
    found = input_columns(market(funding=InputFiles(path="f"), news=InputFiles(path="n")))
    assert found == {"funding.rate", "funding.hours", "funding.hours_to_next", "news.count"}
    assert input_columns(market(**{kind: InputFiles(path="x") for kind in KINDS})) == set(all_columns())


def test_what_comes_from_a_lacking_column_is_left_out() -> None:
    found = input_columns(market(options=InputFiles(path="x", without=["far_iv", "put_volume"])))
    assert "options.atm_iv" in found and not found & {"options.far_iv", "options.put_volume"}
    found = input_columns(market(book=InputFiles(path="x", without=["ask_size"])))
    assert found == {"book.bid_price", "book.bid_size", "book.ask_price", "book.bid_depth", "book.ask_depth"}


@pytest.mark.parametrize("key", ["without", "columns"])
def test_a_column_that_the_kind_does_not_have_is_refused(key: str) -> None:
    named = {"without": ["mid"], "columns": {"mid": "m"}}[key]
    with pytest.raises(ConfigError, match=rf"inputs\.funding\.{key} may name \['rate', 'hours'\], got 'mid'"):
        input_columns(market(funding=InputFiles(path="x", **{key: named})))


def test_features_need_columns_that_a_market_can_have() -> None:
    needed = {name for spec in registered(context=["X"]) for name in spec.needs}
    assert needed <= set(all_columns())


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_names_every_column_of_a_kind(kind: str) -> None:
    page = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{kind}` ")]
    _, columns, outputs, silent = row.strip("| ").split(" | ")[1:]
    described = KINDS[kind]
    assert [name for name in described.columns if f"`{name}`" not in columns] == []
    plain = {name for name, output in described.outputs.items() if output.reads == (name,)}
    assert [name for name in described.outputs if name not in plain and f"`{name}`" not in outputs] == []
    ages = {"15m": "15 minutes", "1d": "1 day", "2d": "2 days", "5d": "5 days", None: "never"}
    assert silent == ages[described.max_age]
