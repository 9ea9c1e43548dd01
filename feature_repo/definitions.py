"""What `feast -c feature_repo apply` registers: the views of the schema that the store stage wrote."""

from __future__ import annotations

from pathlib import Path

from tradeloop.config import load_params, parse_interval
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.feast_views import scalar_view, symbol_entity, vector_view

_LAYOUT = Layout(Path(__file__).resolve().parents[1])
if not (_LAYOUT.store / "schema.json").is_file():
    raise StoreError(f"{_LAYOUT.store / 'schema.json'} is missing: run `python -m stages.store` first")
_SCHEMA = Schema.load(_LAYOUT.store / "schema.json")
_TTL = parse_interval(load_params(_LAYOUT.params).store.ttl)

# Feast registers what it finds at the top of this module.
symbol = symbol_entity()
scalars = scalar_view(_SCHEMA, _TTL)
vector = vector_view(_SCHEMA, _TTL)
