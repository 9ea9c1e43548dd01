"""What all stages share: load the parameters, run, and say what went wrong in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from tradeloop.config import Params, load_params
from tradeloop.errors import TradeloopError
from tradeloop.layout import Layout

Stage = Callable[[Layout, Params], None]


def run(name: str, stage: Stage) -> None:
    """Run `stage`; a `TradeloopError` becomes one line on stderr and exit status 1, its traceback goes to the log."""
    layout = Layout.current()
    try:
        stage(layout, load_params(layout.params))
    except TradeloopError as error:
        log = layout.live / "logs" / "stages.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(filename=log, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        logging.getLogger(name).error("failed", exc_info=error)
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
