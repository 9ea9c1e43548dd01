"""The plain way to serve the same models, as a tutorial would: what benchmarks/serving.py compares with.

BentoML at its defaults, `get_online_features` of one scalar a feature, the models in the libraries that trained them,
and one synchronous insert and commit a request. The models are trained when the service starts, with the parameters of
params.yaml, since the pipeline leaves the random forest in ONNX only.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Any

import bentoml
import numpy as np
from sqlalchemy import DateTime, LargeBinary, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tradeloop.config import MODELS, TARGETS
from tradeloop.layout import Layout
from tradeloop.partitions import files

_PROJECT = "plain"
_VIEW = "scalars"


class Base(DeclarativeBase):
    """Declares the one table."""


class Row(Base):
    """A prediction."""

    __tablename__ = "predictions"

    id: Mapped[int] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    p_up: Mapped[float]
    ret: Mapped[float]
    range: Mapped[float]
    features: Mapped[bytes] = mapped_column(LargeBinary)


@bentoml.service(workers=1)
class Plain:
    """Features as scalars, native models, a synchronous insert."""

    def __init__(self) -> None:
        from tradeloop.config import load_params
        from tradeloop.dataset import load_matrix
        from tradeloop.training import fit

        self._layout = Layout.current()
        params = load_params(self._layout.params)
        matrix = load_matrix(self._layout)
        rows = np.arange(len(matrix.x))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._models: dict[str, list[Any]] = {
                target: [
                    fit(name, matrix, target, rows, hyper=getattr(params.train, name), params=params) for name in MODELS
                ]
                for target in TARGETS
            }
        self._names = list(matrix.schema.names)
        self._store = self._feature_store(params.active.symbols)
        self._references = [f"{_VIEW}:{name}" for name in self._names]
        self._insert = self._table()

    @bentoml.api
    def predict(self, symbols: list[str]) -> dict[str, Any]:
        """Forecast each symbol."""
        rows = self._store.get_online_features(self._references, [{"symbol": symbol} for symbol in symbols]).to_dict()
        x = np.array([rows[name] for name in self._names], dtype=np.float32).T
        forecasts = {target: np.mean([m.predict(x) for m in group], axis=0) for target, group in self._models.items()}
        answers = []
        for i, symbol in enumerate(symbols):
            numbers = {target: float(values[i]) for target, values in forecasts.items()}
            self._insert(symbol, numbers, x[i].tobytes())
            answers.append({"symbol": symbol, **numbers})
        return {"predictions": answers}

    def _feature_store(self, symbols: list[str]) -> Any:
        """Return Feast at its defaults: a file source, SQLite, one Float32 field a feature."""
        import pandas as pd
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.types import Float32

        folder = self._layout.live / "plain"
        folder.mkdir(parents=True, exist_ok=True)
        frames = [pd.read_parquet(files(self._layout.features, symbol)[-1]).tail(1) for symbol in symbols]
        newest = pd.concat(frames, ignore_index=True)
        newest.to_parquet(folder / "newest.parquet")
        entity = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
        view = FeatureView(
            name=_VIEW,
            entities=[entity],
            schema=[Field(name=name, dtype=Float32) for name in self._names],
            source=FileSource(path=str(folder / "newest.parquet"), timestamp_field="timestamp"),
        )
        online = {"type": "sqlite", "path": str(folder / "online.db")}
        config = RepoConfig(
            project=_PROJECT,
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply([entity, view])
        store.write_to_online_store(_VIEW, newest)
        return store

    def _table(self) -> Any:
        """Return a function that inserts a prediction and commits, through SQLAlchemy's ORM."""
        engine = create_engine(f"sqlite:///{self._layout.live / 'plain' / 'predictions.db'}")
        Base.metadata.create_all(engine)

        def insert(symbol: str, numbers: dict[str, float], features: bytes) -> None:
            with Session(engine) as session:
                columns = {"p_up": numbers["direction"], "ret": numbers["return"], "range": numbers["range"]}
                session.add(Row(symbol=symbol, at=datetime.now(UTC), features=features, **columns))
                session.commit()

        return insert
