"""Stage gate: challenger against thresholds, baselines, controls and champion.

A failed gate does not stop the pipeline: the next stage registers the bundle as quarantined. `tradeloop gate` exits 1.
"""

from __future__ import annotations

import json

from stages._run import run
from tradeloop.atomic import write_json
from tradeloop.config import Params
from tradeloop.evaluate.champion import compare_with_champion
from tradeloop.gate import decide
from tradeloop.layout import Layout


def gate(layout: Layout, params: Params) -> None:
    """Write the verdict with its reasons, and print what speaks against the challenger."""
    evaluation = json.loads((layout.reports / "evaluation.json").read_text(encoding="utf-8"))
    verdict = decide(evaluation, params.gate, compare_with_champion(layout, params, evaluation))
    write_json(layout.reports / "gate.json", verdict.as_dict())
    failed = [reason for reason in verdict.reasons if not reason.ok]
    print(f"gate: {'PASS' if verdict.passed else 'FAIL'}, {len(verdict.reasons) - len(failed)} checks passed")
    for reason in failed:
        print(f"gate: FAILED {reason.target} {reason.check}: {reason.text}")
    for part in verdict.targets.values():
        print(f"gate: {part['text']}")


if __name__ == "__main__":
    run("gate", gate)
