"""Stage publish: fill the online store and promote what passed."""

from __future__ import annotations

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.config import Params
from tradeloop.layout import Layout
from tradeloop.publishing import publish as publish_bundle


def publish(layout: Layout, params: Params) -> None:
    """Publish the packaged bundle and report whether it is the champion."""
    report = publish_bundle(layout, params)
    write_json(layout.reports / "publish.json", report)
    state = "is the champion" if report["champion"] else "was not promoted"
    print(f"publish: {report['version']} {state}: {report['reason']}")


if __name__ == "__main__":
    run("publish", publish)
