"""Is a series fit to learn from? Rules → findings → scores of series and days → cleaned bars, or the reason why not."""

from tradeloop.integrity.admit import admit, check_context
from tradeloop.integrity.edges import require
from tradeloop.integrity.examine import Examined, examine
from tradeloop.integrity.report import RULES, Finding, Report, Rule, inspect
from tradeloop.integrity.rules import restatements
from tradeloop.integrity.show import print_table
from tradeloop.integrity.tables import finding_table, mark_table

__all__ = [
    "RULES",
    "Examined",
    "Finding",
    "Report",
    "Rule",
    "admit",
    "check_context",
    "examine",
    "finding_table",
    "inspect",
    "mark_table",
    "print_table",
    "require",
    "restatements",
]
