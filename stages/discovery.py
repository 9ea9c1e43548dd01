"""Stage discovery: columns made of two others that tell more, looked for in the first fold's training rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.compute.features import read_bars
from tradeloop.config import TARGETS, Params
from tradeloop.dataset import load_matrix
from tradeloop.features.engine import specs_for
from tradeloop.layout import Layout
from tradeloop.selection.discovery import search
from tradeloop.splits import read_splits


def discovery(layout: Layout, params: Params) -> None:
    """Write ``data/reports/discovery.json``: how many were tried, the shortlists, and what may be switched on."""
    config = params.discovery
    found: dict[str, Any] = {"trials": 0, "columns": [], "targets": {}}
    if config.trials:
        matrix, (folds, _) = load_matrix(layout), read_splits(layout)
        bars = {symbol: read_bars(layout, params, symbol) for symbol in params.active.symbols}
        for target in tqdm(TARGETS, desc="discovery", unit="target"):
            result = search(
                matrix,
                bars,
                specs_for(params),
                target,
                folds[0].train,
                config=config,
                embargo=params.split.embargo,
                seed=params.seed,
            )
            found["trials"] += result.trials
            found["targets"][target] = [asdict(one) for one in result.shortlist]
            names = [one.name for one in result.shortlist if one.confirmed][: config.keep]
            found["columns"] += [name for name in names if name not in found["columns"]]
        print(f"discovery: {len(found['columns'])} of {found['trials']} candidates stood the test: {found['columns']}")
    write_json(layout.reports / "discovery.json", found)


if __name__ == "__main__":
    run("discovery", discovery)
