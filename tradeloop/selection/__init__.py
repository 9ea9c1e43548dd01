"""Which columns a model of a target may read: chosen inside each fold, from its training rows alone.

Chosen on all rows, columns would know the answers of the test rows, and even noise would show skill (Ambroise and
McLachlan 2002, Selection bias in gene extraction on the basis of microarray gene-expression data).
"""

from __future__ import annotations

from tradeloop.selection.choice import Choice, choose
from tradeloop.selection.chosen import EVERY, Chosen, choose_all, read_chosen

__all__ = ["EVERY", "Choice", "Chosen", "choose", "choose_all", "read_chosen"]
