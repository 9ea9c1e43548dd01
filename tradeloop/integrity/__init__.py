"""Is a series fit to learn from? Rules → findings → a reliability score → cleaned bars, or the reason why not."""

from tradeloop.integrity.admit import admit, check_context
from tradeloop.integrity.report import RULES, Finding, Report, Rule, inspect
from tradeloop.integrity.show import print_table

__all__ = ["RULES", "Finding", "Report", "Rule", "admit", "check_context", "inspect", "print_table"]
