"""Stage store: declare the feature schema, and its views to Feast."""

from __future__ import annotations

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.config import Params
from tradeloop.features import schema_for
from tradeloop.layout import Layout
from tradeloop.state.feast_repo import describe_views, open_store


def store(layout: Layout, params: Params) -> None:
    """Write ``data/store/{schema,views}.json`` and apply the views.

    Feast's registry is live state, not an output: whoever opens the store applies again what it lacks.
    """
    schema = schema_for(params)
    open_store(layout, params, schema)
    schema.save(layout.store / "schema.json")
    write_json(layout.store / "views.json", describe_views(params, schema))


if __name__ == "__main__":
    run("store", store)
