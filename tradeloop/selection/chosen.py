"""The columns of every fold, as the stage `selection` writes them and the fits read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from tradeloop.config import TARGETS, Params, Target
from tradeloop.errors import DataError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.selection.choice import Choice, choose
from tradeloop.splits import Fold, Rows

if TYPE_CHECKING:
    from tradeloop.dataset import Matrix

Choices = Mapping[Target, Mapping[int, Choice]]
FILE = "selection.json"


@dataclass(frozen=True)
class Chosen:
    """Positions of the columns that a fold's model of a target may read, by target and the fold's number."""

    columns: Mapping[Target, Mapping[int, Rows]] = field(default_factory=dict)

    def of(self, target: Target, fold: int) -> Rows | None:
        """Return the columns of one fit; None: all."""
        return self.columns[target][fold] if self.columns else None

    def content(self, schema: Schema) -> dict[str, Any]:
        """Return it as JSON has it, columns by name; `read_chosen` reads it."""
        targets = {
            target: {str(number): named(columns, schema)["columns"] for number, columns in folds.items()}
            for target, folds in self.columns.items()
        }
        return {"schema": schema.hash, "targets": targets}


EVERY = Chosen()


def named(columns: Rows | None, schema: Schema) -> dict[str, list[str]]:
    """Return the columns of one fit by name, for its record; nothing where it has all."""
    return {} if columns is None else {"columns": [schema.names[at] for at in columns]}


def choose_all(matrix: Matrix, folds: Sequence[Fold], *, params: Params) -> Choices:
    """Choose for every target and fold, the holdout's training rows included as one; nothing with ``method: none``."""
    if params.selection.method == "none":
        return {}
    with tqdm(total=len(TARGETS) * len(folds), desc="selection", unit="choice") as bar:

        def one(target: Target, fold: Fold) -> Choice:
            found = choose(
                matrix, target, fold.train, config=params.selection, embargo=params.split.embargo, seed=params.seed
            )
            bar.update()
            return found

        return {target: {fold.number: one(target, fold) for fold in folds} for target in TARGETS}


def chosen_of(choices: Choices) -> Chosen:
    """Return the columns that were chosen."""
    return Chosen({target: {n: one.kept for n, one in by_fold.items()} for target, by_fold in choices.items()})


def read_chosen(layout: Layout, schema: Schema) -> Chosen:
    """Read the columns of every fold.

    Raises
    ------
    DataError
        The stage has not run.
    SchemaMismatch
        They were chosen among other features.
    """
    path = layout.models / FILE
    if not path.is_file():
        raise DataError(f"{path} is missing: run `python -m stages.selection` first")
    content = json.loads(path.read_text(encoding="utf-8"))
    schema.require(content["schema"], what=str(path.name))
    place = {name: at for at, name in enumerate(schema.names)}
    return Chosen(
        {
            target: {
                int(number): np.array([place[name] for name in names], dtype=np.intp)
                for number, names in content["targets"][target].items()
            }
            for target in TARGETS
            if target in content["targets"]
        }
    )
