"""Stage package: one content-hashed bundle and, if it passed the gate, the Bento that serves it."""

from __future__ import annotations

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.config import Params
from tradeloop.layout import Layout
from tradeloop.publishing import package as package_bundle


def package(layout: Layout, params: Params) -> None:
    """Write the bundle, store and register it, and report what became of it."""
    report = package_bundle(layout, params)
    write_json(layout.reports / "package.json", report)
    print(f"package: bundle {report['version']} {report['reason']}; Bento {report['bento'] or 'none'}")


if __name__ == "__main__":
    run("package", package)
