"""Stage config: refuse a bad params.yaml before anything else runs."""

from __future__ import annotations

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.config import Params
from tradeloop.layout import Layout


def config(layout: Layout, params: Params) -> None:
    """Write a marker that never changes: by the time this runs, the parameters have been validated."""
    del params
    write_json(layout.data / "config.json", {"valid": True})


if __name__ == "__main__":
    run("config", config)
