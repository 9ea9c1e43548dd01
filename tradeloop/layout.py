"""Where things lie: one object that knows every path below a project root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "TRADELOOP_HOME"
SOURCES_VARIABLE = "TRADELOOP_SOURCES"


@dataclass(frozen=True)
class Layout:
    """Paths below a project root.

    Everything under ``data/`` but ``live``, ``bentoml``, ``services`` and ``stream`` is a DVC output; the first three
    hold live state, which DVC never touches, the last what was streamed, which the pipeline begins with.
    """

    root: Path

    @classmethod
    def current(cls) -> Layout:
        """Return the layout at ``$TRADELOOP_HOME``, or at the nearest folder upward that has a params.yaml."""
        if home := os.environ.get(HOME_VARIABLE):
            return cls(Path(home).resolve())
        here = Path.cwd().resolve()
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file():
                return cls(folder)
        return cls(here)

    @property
    def params(self) -> Path:
        """The parameter file."""
        return self.root / "params.yaml"

    @property
    def sources(self) -> Path:
        """Where relative paths of a market's files start: the root, or ``$TRADELOOP_SOURCES``.

        A retraining's workspace reads the files of the project that it was cloned from.
        """
        return Path(os.environ.get(SOURCES_VARIABLE) or self.root).resolve()

    @property
    def data(self) -> Path:
        """Root of all data."""
        return self.root / "data"

    def streamed(self, market: str) -> Path:
        """Return the folder of the journal of a market's streamed bars, below `sources`: the stage ingest reads it."""
        return self.sources / "data" / "stream" / market

    @property
    def raw(self) -> Path:
        """Canonical bars as ingested: ``bars/<symbol>.parquet``, ``context/<name>.parquet``."""
        return self.data / "raw"

    @property
    def clean(self) -> Path:
        """Checked bars, same shape as `raw`."""
        return self.data / "clean"

    @property
    def features(self) -> Path:
        """Feature rows, ``<symbol>/<period>.parquet``; see `tradeloop.partitions`."""
        return self.data / "features"

    @property
    def labels(self) -> Path:
        """Label rows, ``<symbol>.parquet``."""
        return self.data / "labels"

    @property
    def store(self) -> Path:
        """What the store stage declared: ``schema.json``."""
        return self.data / "store"

    @property
    def training(self) -> Path:
        """``matrix.parquet``, ``schema.json`` and ``splits.parquet``."""
        return self.data / "training"

    @property
    def models(self) -> Path:
        """``tuned/<model>.json``, ``trained/<model>/``, ``stack/`` and ``bundle/``."""
        return self.data / "models"

    @property
    def reports(self) -> Path:
        """Metrics, gate verdict, plots' data and the HTML report."""
        return self.data / "reports"

    @property
    def live(self) -> Path:
        """Live state: the database, the online store, Feast's registry, logs."""
        return self.data / "live"

    @property
    def bentoml(self) -> Path:
        """The BentoML home, unless ``$BENTOML_HOME`` says otherwise."""
        return Path(os.environ.get("BENTOML_HOME") or self.data / "bentoml")
