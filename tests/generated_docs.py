"""Documentation that is made from the code; ``python -m tests.generated_docs`` writes it."""

from __future__ import annotations

from pathlib import Path

from tradeloop.features import describe

FEATURES = Path(__file__).resolve().parents[1] / "docs" / "features.md"


def features_page() -> str:
    """Return docs/features.md as the registry demands."""
    return f"""# The features

Made by `make docs` from the feature registry; `tradeloop features` lists those of the present market. A feature is a
pure function of closed bars that depends on its last `lookback` bars and on nothing else: the same value whether it is
computed over the whole history or over that tail, unchanged when later bars arrive, and free of the price's and the
volume's scale. A row is NaN until each of its features has that many bars. `series` stands for a context series of the
market (`sp500`, `nasdaq`, `wti`), as it was known at the bar's close.

{describe()}
"""


if __name__ == "__main__":
    FEATURES.write_text(features_page(), encoding="utf-8")
