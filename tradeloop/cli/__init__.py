"""The command line: ``tradeloop status``, ``predict``, ``promote``, ``rollback`` and the rest.

Commands import what they need when they run, so that ``tradeloop status`` need not wait for Feast.
"""

from __future__ import annotations

import sys

import typer

from tradeloop.cli import (
    adaptation,
    inspect,
    integrity,
    loop,
    ml,
    models,
    outcomes,
    paper,
    serving,
    simulate,
    stream,
    versions,
)
from tradeloop.errors import TradeloopError

app = typer.Typer(
    help="A learning loop for trading models: look at it, serve it, promote and roll back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    *(inspect.status, integrity.check, inspect.gate, inspect.features, inspect.version),
    *(models.models, models.events, models.served, models.promote, models.rollback, models.stage, models.unstage),
    *(models.demote, models.quarantine, models.archive, versions.compare, versions.cleanup, versions.export),
    *(ml.performance, ml.experiments, ml.retrain, ml.cancel, ml.acknowledge, ml.jobs, ml.decisions),
    *(outcomes.outcomes, adaptation.adaptations, adaptation.adapt),
    *(serving.serve, serving.predict, serving.replay, serving.publish, loop.loop),
    *(simulate.simulate, paper.paper, stream.stream),
):
    app.command()(command)
app.command("import")(versions.bring_in)  # a word that Python keeps to itself


def main() -> None:
    """Run the command line: an error is one line on stderr and exit status 1, wrong usage is 2."""
    try:
        app()
    except TradeloopError as error:
        print(f"tradeloop: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
