from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update

from tests.bundles import NOW, SYMBOLS, tiny_bundle, tiny_rows
from tradeloop.adaptation import Adaptation
from tradeloop.bundle import Bundle
from tradeloop.errors import BundleError, StoreError
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Predictor
from tradeloop.replay import replay
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database
from tradeloop.state.tables import PredictionRow


@dataclass(frozen=True)
class Stored:
    vectors: NDArray[np.float32]
    feature_time: NDArray[np.datetime64]
    found: NDArray[np.bool_]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path / 'tradeloop.db'}")
    yield opened
    opened.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def ids(database: Database, bundle: Bundle) -> list[str]:
    """Return the ids of four logged answers: a forecast, a row with a gap, a stale one, and one not found."""
    vectors = tiny_rows(4)
    vectors[1, 2] = np.nan
    vectors[3] = np.nan
    times = np.full(4, np.datetime64(NOW.replace(tzinfo=None), "us"))
    times[2] -= np.timedelta64(6, "D")
    times[3] = np.datetime64("NaT")
    rows = Stored(vectors, times, np.array([True, True, True, False]))
    answers = Predictor(bundle).predict(SYMBOLS, rows, now=NOW, max_age=timedelta(days=5), clock="replay")
    with PredictionLog(database) as log:
        log.append(answers).result(timeout=10)
    return [str(answer.id) for answer in answers]


def by_hash(*bundles: Bundle) -> dict[str, Bundle]:
    return {bundle.hash: bundle for bundle in bundles}


def test_every_kind_of_answer_comes_out_as_logged(database: Database, bundle: Bundle, ids: list[str]) -> None:
    results = [replay(logged, database, by_hash(bundle).__getitem__) for logged in ids]
    reasons = [["missing_features"], ["stale_features"], ["missing_features"]]
    assert [result.logged["reasons"] for result in results[1:]] == reasons
    assert all(result.matches and result.error == 0.0 for result in results)
    assert results[0].recomputed["p_up"] == results[0].logged["p_up"] is not None
    assert results[2].recomputed["p_up"] is None


def test_it_uses_the_model_of_the_log_not_another(database: Database, bundle: Bundle, ids: list[str]) -> None:
    asked: list[str] = []

    def load(bundle_hash: str) -> Bundle:
        asked.append(bundle_hash)
        return bundle

    replay(ids[0], database, load)
    assert asked == [bundle.hash]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"p_up": 0.5}, ["p_up"]),
        ({"range_high": None}, ["range_high"]),
        ({"verdict": "nothing"}, ["verdict"]),
        ({"reasons": ["made_up"]}, ["reasons"]),
    ],
)
def test_a_log_that_was_tampered_with_is_found_out(
    database: Database, bundle: Bundle, ids: list[str], change: dict[str, object], fields: list[str]
) -> None:
    with database.write() as connection:
        connection.execute(update(PredictionRow).where(PredictionRow.id == ids[0]).values(**change))
    result = replay(ids[0], database, by_hash(bundle).__getitem__)
    assert not result.matches
    assert [difference.field for difference in result.differences] == fields


def test_a_difference_is_what_exceeds_a_millionth(database: Database, bundle: Bundle, ids: list[str]) -> None:
    for shift, same in ((0.9e-6, True), (1.1e-6, False)):
        before = replay(ids[0], database, by_hash(bundle).__getitem__).recomputed["p_up"]
        with database.write() as connection:
            changed = update(PredictionRow).where(PredictionRow.id == ids[0]).values(p_up=before + shift)
            connection.execute(changed)
        result = replay(ids[0], database, by_hash(bundle).__getitem__)
        assert result.matches is same
        assert result.error == pytest.approx(shift, rel=1e-6)


def test_changed_features_change_the_numbers(database: Database, bundle: Bundle, ids: list[str]) -> None:
    with database.write() as connection:
        features = tiny_rows(1, seed=42)[0].tobytes()
        connection.execute(update(PredictionRow).where(PredictionRow.id == ids[0]).values(features=features))
    assert len(replay(ids[0], database, by_hash(bundle).__getitem__).differences) >= 7


def test_an_adapted_prediction_is_recomputed_with_its_own_snapshot(database: Database, bundle: Bundle) -> None:
    store = AdaptationStore(database, "us_daily")
    made = []
    for seq, intercept in enumerate((0.3, -0.6)):
        content = {"targets": {"direction": {"intercept": intercept}, "range": {"intercept": 0.2}}, "cost_bps": 3.0}
        snapshot = store.append(bundle.hash, "snapshot", content, outcome_seq=seq, market_time=NOW, reason="learned")
        rows = Stored(tiny_rows(1), np.array([NOW.replace(tzinfo=None)], "datetime64[us]"), np.array([True]))
        adapted = Predictor(bundle, Adaptation.parse(content, spec=bundle.ensemble.spec), snapshot)
        made += adapted.predict(["AAPL"], rows, now=NOW, max_age=timedelta(days=5), clock="replay")
    with PredictionLog(database) as log:
        log.append(made).result(timeout=10)
    first, second = (replay(str(one.id), database, by_hash(bundle).__getitem__) for one in made)
    assert first.matches and second.matches and first.error == 0.0
    assert first.recomputed["p_up"] > 0.05 + second.recomputed["p_up"]

    with database.write() as connection:
        connection.execute(update(PredictionRow).where(PredictionRow.id == made[0].id).values(adaptation=None))
    assert "p_up" in [d.field for d in replay(str(made[0].id), database, by_hash(bundle).__getitem__).differences]
    with database.write() as connection:
        connection.execute(update(PredictionRow).where(PredictionRow.id == made[0].id).values(adaptation="gone"))
    with pytest.raises(StoreError, match="no adaptation"):
        replay(str(made[0].id), database, by_hash(bundle).__getitem__)


def test_an_unknown_id_and_another_schema_are_errors(database: Database, bundle: Bundle, ids: list[str]) -> None:
    with pytest.raises(StoreError, match="no prediction has the id"):
        replay("nothing", database, by_hash(bundle).__getitem__)
    with database.write() as connection:
        connection.execute(update(PredictionRow).values(schema_hash="f" * 64))
    with pytest.raises(BundleError, match="another schema"):
        replay(ids[0], database, by_hash(bundle).__getitem__)
