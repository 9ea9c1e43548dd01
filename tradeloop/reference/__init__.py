"""What the holdout says of a model, kept in its bundle, so that a live watch needs nothing else.

Everything live is compared with this: how sharp and how well calibrated the champion was on rows that it never saw, how
its errors were spread, what its features and forecasts looked like. `build_reference` measures it when the bundle is
made, from the forecasts of the very ensemble that will serve. Estimates carry standard errors: a short holdout says
little, and whoever tests against it must know.
"""

from __future__ import annotations

from tradeloop.reference.content import Estimate, Features, Forecasts, Range, Reference, Sharpness, Sketch
from tradeloop.reference.estimates import fit_line
from tradeloop.reference.measure import build_reference

__all__ = [
    "Estimate",
    "Features",
    "Forecasts",
    "Range",
    "Reference",
    "Sharpness",
    "Sketch",
    "build_reference",
    "fit_line",
]
