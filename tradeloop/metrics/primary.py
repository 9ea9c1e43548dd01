"""The two metrics that decide for each target: one of skill, which people read, and one of loss, which comparisons use.

Skill has a value that chance scores, so its interval can prove something. Loss is proper: only an honest forecast
minimises it, so it decides between forecasts of the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from tradeloop.config import Target

SKILL: Mapping[Target, str] = {"direction": "auc", "return": "ic", "range": "r2"}
LOSS: Mapping[Target, str] = {"direction": "log_loss", "return": "rmse", "range": "rmse"}
