"""Documentation that is made from the code; ``python -m tests.generated_docs`` writes it."""

from __future__ import annotations

from pathlib import Path

from tradeloop.config import load_params
from tradeloop.features import describe, listed, specs_for

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ROOT / "docs" / "features.md"


def features_page() -> str:
    """Return docs/features.md as the registry demands."""
    specs, default = listed(), specs_for(load_params(ROOT / "params.yaml"))
    return f"""# The features

Made by `make docs` from the feature registry, all {len(specs)} columns of it; `tradeloop features` lists those of the
present market, `tradeloop features --json` column by column. A feature is a pure function of closed bars that depends
on its last `lookback` bars and on nothing else: the same value whether it is computed over the whole history or over
that tail, unchanged when later bars arrive, and free of the price's and the volume's scale.

- **Warm-up.** A value is NaN in the first `lookback` − 1 bars, and there only, unless its definition says where else.
  A row of the training matrix needs all of its values.
- **Names.** n stands for a window of bars, `series` for a context series of the market (`sp500`, `nasdaq`, `wti`), as
  it was known at the bar's close, `timeframe` for a longer bar, gathered from closed bars. A definition is one row of a
  table, whatever it is multiplied by, and has the lookbacks of its windows.
- **Letters.** O, H, L, C, V are the bar's open, high, low, close and volume, TR its true range.
- **Which ones.** `features.families` in `params.yaml` names the families that a market is to have. Those that read data
  beyond bars are there only where the market declares it. Of a family of which `features.columns` names any, only
  those are computed. The default names {len(default)}: on us_daily, out of fold (2004 to 2010, mean of five folds, the
  holdout untouched) they did better than all 241 columns of the same families on every target of the stack: AUC 0.536
  against 0.524, return IC 0.072 against 0.055, range R² 0.415 against 0.400. More columns are not more skill; ask
  [selection](selection.md) before you switch them on.

{describe(specs)}
"""


if __name__ == "__main__":
    FEATURES.write_text(features_page(), encoding="utf-8")
