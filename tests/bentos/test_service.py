"""The service over real HTTP, in a server process of its own."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from tests.bundles import NOW, SYMBOLS, tiny_rows
from tests.servers import DAYS, TOKEN, Home, Server
from tradeloop.bundle_store import BundleStore
from tradeloop.registry import Registry
from tradeloop.replay import replay
from tradeloop.serving.answers import Answer, ModelsAnswer, SwapAnswer

pytestmark = pytest.mark.xdist_group("server")


def wait_for(server: Server, version: str, seconds: float = 5.0) -> None:
    """Wait until `version` serves."""
    deadline = time.monotonic() + seconds
    while server.client.get("/models").json()["serving"]["version"] != version:
        assert time.monotonic() < deadline, f"{version} does not serve:\n{server.output[-3000:]}"
        time.sleep(0.02)


def logged(home: Home, prediction_id: str, column: str = "id") -> bool:
    with sqlite3.connect(home.layout.live / "tradeloop.db") as connection:
        query = f"SELECT 1 FROM predictions WHERE {column} = ?"
        return connection.execute(query, (prediction_id,)).fetchone() is not None


def test_answers_known_symbols_beside_unknown_ones(server: Server, home: Home) -> None:
    response = server.predict("AAPL", "NOPE", "MSFT")
    assert response.status_code == 200
    answer = Answer.model_validate(response.json())
    assert [p.symbol for p in answer.predictions] == ["AAPL", "NOPE", "MSFT"]
    assert [p.status for p in answer.predictions] == [200, 404, 200]
    assert answer.clock.mode == "replay"
    assert answer.clock.now == NOW
    assert answer.model.version == home.versions[1]
    first, unknown = response.json()["predictions"][:2]
    assert unknown["error"] == "market us_daily has no symbol 'NOPE'"
    assert first["as_of"] == NOW.isoformat()
    assert first["feature_age_seconds"] == 0
    assert first["expected_return"]["low"] < first["expected_return"]["value"] < first["expected_return"]["high"]
    assert 0 < first["expected_range"]["low"] < first["expected_range"]["value"] < first["expected_range"]["high"]
    assert first["verdict"] in ("trade", "abstain")
    assert logged(home, first["prediction_id"])


def test_the_answer_is_the_bundles_own_forecast(server: Server, home: Home) -> None:
    bundle = BundleStore(home.layout, home.params).get(home.hashes[1])
    row = tiny_rows(DAYS, seed=SYMBOLS.index("IBM"))[-1:]
    forecast = bundle.forecast(row)
    (entry,) = server.predict("IBM").json()["predictions"]
    assert entry["p_up"] == pytest.approx(forecast.p_up[0], abs=1e-6)
    assert entry["expected_return"]["value"] == pytest.approx(forecast.ret[0], abs=1e-6)
    assert entry["expected_range"]["high"] == pytest.approx(np.exp(forecast.range_high[0]), abs=1e-6)


def test_replay_matches_what_was_answered(server: Server, home: Home) -> None:
    (entry,) = server.predict("GOOG").json()["predictions"]
    database = home.database()
    outcome = replay(entry["prediction_id"], database, BundleStore(home.layout, home.params).get)
    database.close()
    assert outcome.matches
    assert outcome.error <= 1e-6
    assert outcome.recomputed["p_up"] == pytest.approx(entry["p_up"], abs=1e-6)


def test_as_of_answers_from_the_past_row(server: Server) -> None:
    past = datetime(2013, 2, 20, 22, tzinfo=UTC)
    answer = server.predict("AAPL", as_of=past.isoformat()).json()
    (entry,) = answer["predictions"]
    assert answer["clock"] == {"mode": "replay", "now": past.isoformat()}
    assert entry["as_of"] == "2013-02-20T21:00:00+00:00"
    assert entry["feature_age_seconds"] == 3600
    assert entry["p_up"] != server.predict("AAPL").json()["predictions"][0]["p_up"]


def test_as_of_long_after_the_last_bar_abstains_as_stale(server: Server) -> None:
    (entry,) = server.predict("AAPL", as_of="2013-04-01T00:00:00Z").json()["predictions"]
    assert (entry["verdict"], entry["reasons"], entry["p_up"]) == ("abstain", ["stale_features"], None)


def test_as_of_before_the_first_bar_abstains_as_missing(server: Server) -> None:
    (entry,) = server.predict("AAPL", as_of="1999-01-01T00:00:00Z").json()["predictions"]
    assert (entry["verdict"], entry["reasons"], entry["as_of"]) == ("abstain", ["missing_features"], None)


MANY = json.dumps({"symbols": [f"S{i}" for i in range(10_001)]})
BAD: list[tuple[str, int, str]] = [
    ('{"symbols": []}', 422, "symbols must name at least one symbol"),
    (MANY, 422, "symbols may name at most 10000, got 10001"),
    ('{"symbols": "AAPL"}', 422, "symbols must be a list, got 'AAPL'"),
    ('{"symbols": [1]}', 422, "symbols[0] must be a string, got 1"),
    ('{"symbols": ["AAPL", null]}', 422, "symbols[1] must be a string, got None"),
    ('{"symbols": ["IBM", "AAPL", "IBM"]}', 422, "symbols may name each symbol once, got 'IBM' 2 times"),
    ('{"symbols": ["AAPL"], "asof": "x"}', 422, "unknown key 'asof' (known: symbols, as_of)"),
    ('{"symbols": ["AAPL"], "as_of": "2013-02-28"}', 422, "as_of must be an ISO time with its UTC offset"),
    ("{}", 422, "symbols is missing (known: symbols, as_of)"),
    ("[]", 422, "the body must be an object with the keys symbols, as_of, got []"),
    ('{"symbols": ["AAPL"', 400, "the body must be JSON: EOF while parsing a list at line 1 column 19"),
    ("", 400, "the body must be JSON: EOF while parsing a value at line 1 column 0"),
    (" " * ((1 << 20) + 1), 413, "the body may have at most 1048576 bytes"),
]


@pytest.mark.parametrize(("body", "status", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_a_bad_request_gets_one_clear_line(server: Server, body: str, status: int, message: str) -> None:
    response = server.client.post("/predict", content=body.encode())
    assert response.status_code == status
    content = response.json()
    assert list(content) == ["error"]
    assert content["error"].startswith(message)
    assert "\n" not in content["error"]


def test_ten_thousand_symbols_are_answered(server: Server) -> None:
    symbols = [*SYMBOLS, *(f"S{i}" for i in range(10_000 - len(SYMBOLS)))]
    predictions = server.predict(*symbols).json()["predictions"]
    assert [p["symbol"] for p in predictions] == symbols
    assert sum(p["status"] == 200 for p in predictions) == len(SYMBOLS)


def test_a_wrong_method_is_an_error_in_json(server: Server) -> None:
    response = server.client.get("/predict")
    assert (response.status_code, response.json()) == (405, {"error": "Method Not Allowed"})


def test_the_openapi_page_shows_the_routes(server: Server) -> None:
    document = server.client.get("/docs.json").json()
    assert {"/predict", "/models", "/promote", "/rollback", "/outcomes"} <= set(document["paths"])
    ml = {
        "performance",
        "experiments",
        "models",
        "retrain",
        "status",
        "events",
        "outcomes",
        "adaptations",
        "cancel",
        "acknowledge",
    }
    assert {f"/api/ml/{name}" for name in ml} <= set(document["paths"])
    assert set(document["paths"]["/api/ml/retrain"]) == {"get", "post"}
    named = {one["name"] for one in document["paths"]["/api/ml/performance"]["get"]["parameters"]}
    assert named == {"symbol", "model", "arm", "regime", "window", "since", "limit"}
    fills = document["paths"]["/outcomes"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "prediction_id" in fills["properties"]["fills"]["items"]["properties"]
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"symbols", "as_of"}


def test_metrics_count_predictions_by_verdict_and_model(server: Server, home: Home) -> None:
    def count() -> float:
        lines = server.client.get("/metrics").text.splitlines()
        start = f'tradeloop_predictions_total{{model="{home.versions[1]}"'
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    before = count()
    server.predict("AAPL", "IBM", "NOPE")
    assert count() == before + 2
    text = server.client.get("/metrics").text
    assert f'tradeloop_champion{{model="{home.versions[1]}",source="registry"}} 1.0' in text
    assert "tradeloop_log_seconds_count" in text
    assert "tradeloop_http_request_duration_seconds_count" in text


@pytest.mark.parametrize("path", ["/promote", "/rollback"])
@pytest.mark.parametrize("token", [None, "wrong", f"{TOKEN}x", TOKEN[:-1]])
def test_changes_need_the_token(server: Server, home: Home, path: str, token: str | None) -> None:
    response = server.post(path, {"version": home.versions[0]} if path == "/promote" else {}, token=token)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert server.client.get("/models").json()["serving"]["version"] == home.versions[1]


def test_models_lists_what_is_registered(server: Server, home: Home) -> None:
    answer = ModelsAnswer.model_validate(server.client.get("/models").json())
    assert [model.version for model in answer.models] == home.versions
    assert answer.serving is not None
    assert answer.serving.version == home.versions[1]
    assert answer.refused is None


def test_promoting_what_is_unknown_or_nothing_is_refused(server: Server) -> None:
    response = server.post("/promote", {"version": "feedbeef"})
    assert response.status_code == 409
    assert response.json()["error"].startswith("no version 'feedbeef' is registered")
    assert server.post("/promote", {}).status_code == 422
    assert server.post("/rollback", {"to": 3}).json() == {"error": "to must be a string, got 3"}


@pytest.mark.parametrize("damage", ["truncated", "edited", "missing"])
def test_a_broken_bundle_is_not_promoted(server: Server, home: Home, damage: str) -> None:
    folder = home.bundle_folder(2)
    graph = folder / "xgboost" / "direction.onnx"
    whole = graph.read_bytes()
    if damage == "missing":
        graph.unlink()
    else:
        graph.write_bytes(whole[:-1] if damage == "truncated" else whole[:-1] + b"!")
    try:
        events = event_count(home)
        response = server.post("/promote", {"version": home.versions[2]})
        assert response.status_code == 409
        assert "xgboost/direction.onnx" in response.json()["error"]
        assert event_count(home) == events
        assert server.predict("AAPL").json()["model"]["version"] == home.versions[1]
    finally:
        graph.write_bytes(whole)


def test_a_broken_champion_is_refused_and_the_old_one_serves_on(server: Server, home: Home) -> None:
    folder = home.bundle_folder(2)
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    database = home.database()
    try:
        Registry(database, home.params.market).promote(home.hashes[2], actor="test", reason="behind its back")
        deadline = time.monotonic() + 5
        while (refused := server.client.get("/models").json()["refused"]) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert refused["version"] == home.versions[2]
        assert "cannot be read" in refused["reason"]
        assert refused["reason"] in server.output
        assert server.predict("AAPL").json()["model"]["version"] == home.versions[1]
        hidden.rename(folder)
        wait_for(server, home.versions[2], seconds=10)  # put right, it is taken without another event
        assert server.client.get("/models").json()["refused"] is None
    finally:
        if hidden.exists():
            hidden.rename(folder)
        Registry(database, home.params.market).rollback(actor="test", reason="back")
        database.close()
    wait_for(server, home.versions[1])


def test_swaps_under_load_fail_no_request(server: Server, home: Home) -> None:
    stop = threading.Event()
    statuses: list[int] = []
    versions: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=10) as client:
            while not stop.is_set():
                response = client.post("/predict", json={"symbols": ["AAPL", "MSFT"]})
                statuses.append(response.status_code)
                content = response.json()
                of = {content["model"]["version"], *(p["model_version"] for p in content["predictions"])}
                assert len(of) == 1
                versions.extend(of)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    swaps = []
    for _ in range(3):
        time.sleep(0.3)
        started = time.monotonic()
        back = SwapAnswer.model_validate(server.post("/rollback", {"to": home.versions[0]}).json())
        swaps.append(time.monotonic() - started)
        assert back.serving.version == back.champion.version == home.versions[0]
        assert back.previous == home.versions[1]
        assert server.predict("IBM").json()["model"]["version"] == home.versions[0]
        time.sleep(0.3)
        # Rolled back from, it takes more than a plain promotion to come back.
        refused = server.post("/promote", {"version": home.versions[1]})
        assert refused.status_code == 409
        force_promote(home, 1)
        wait_for(server, home.versions[1])
    stop.set()
    for thread in threads:
        thread.join(20)
    assert set(statuses) == {200}
    assert len(statuses) > 100
    assert set(versions) == {home.versions[0], home.versions[1]}
    assert max(swaps) < 2


def test_a_challenger_watches_and_the_loop_is_to_be_seen(server: Server, home: Home) -> None:
    database = home.database()
    registry = Registry(database, home.params.market)
    registry.stage(home.hashes[2], mode="shadow", actor="test", reason="tried")
    try:
        deadline = time.monotonic() + 10
        while [one["state"] for one in server.client.get("/models").json()["challengers"]] != ["taking part"]:
            assert time.monotonic() < deadline, server.output[-3000:]
            time.sleep(0.05)
        (entry,) = server.predict("AAPL").json()["predictions"]
        assert (entry["model_version"], entry["arm"]) == (home.versions[1], "champion")
        while not logged(home, entry["prediction_id"], column="parent"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        label = f'tradeloop_challenger_predictions_total{{arm="shadow",model="{home.versions[2]}"}}'
        assert label in server.client.get("/metrics").text
        while 'tradeloop_challengers{mode="shadow"} 1.0' not in (text := server.client.get("/metrics").text):
            assert time.monotonic() < deadline + 20, text
            time.sleep(0.2)
        assert 'tradeloop_heartbeat_age_seconds{component="service"}' in text
        status = server.client.get("/api/ml/status").json()
        assert [one["version"] for one in status["challengers"]] == [home.versions[2]]
        fill = {"fill_id": "f1", "prediction_id": entry["prediction_id"], "side": "buy", "quantity": 1.0, "price": 10.0}
        fills = {"fills": [fill | {"filled_at": NOW.isoformat()}]}
        assert server.post("/outcomes", fills, token=None).status_code == 401
        assert server.post("/outcomes", fills).json()["fills"][0]["status"] == "accepted"
    finally:
        registry.unstage(home.hashes[2], actor="test", reason="done")
        database.close()


def test_a_locked_database_answers_503_and_nothing_else(server: Server, home: Home) -> None:
    with sqlite3.connect(home.layout.live / "tradeloop.db", isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        response = server.predict("AAPL")
        connection.execute("ROLLBACK")
    assert response.status_code == 503
    assert response.json()["error"].endswith("database is locked")
    assert server.predict("AAPL").status_code == 200
    assert "tradeloop_log_failures_total" in server.client.get("/metrics").text


def test_an_online_store_deleted_under_the_service_is_filled_again(server: Server, home: Home) -> None:
    for path in (home.layout.live / "feast").glob("online.db*"):
        path.unlink()
    entries = server.predict(*SYMBOLS).json()["predictions"]
    assert [entry["reasons"] for entry in entries if entry["p_up"] is None] == []
    assert "the online store lacked" in server.output


def event_count(home: Home) -> int:
    with sqlite3.connect(home.layout.live / "tradeloop.db") as connection:
        return int(connection.execute("SELECT count(*) FROM model_events").fetchone()[0])


def force_promote(home: Home, number: int) -> None:
    database = home.database()
    Registry(database, home.params.market).promote(home.hashes[number], actor="test", reason="again", force=True)
    database.close()


def test_the_command_line_asks_the_service(
    server: Server, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tradeloop.cli import main

    monkeypatch.setenv("TRADELOOP_HOME", str(home.root))
    monkeypatch.setenv("TRADELOOP_URL", server.url)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tradeloop", "predict", *arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    status, out, _ = run("AAPL", "IBM", "--json")
    assert status == 0
    assert [entry.symbol for entry in Answer.model_validate_json(out).predictions] == ["AAPL", "IBM"]
    status, out, _ = run("AAPL", "NOPE")
    assert status == 1
    assert "market us_daily has no symbol 'NOPE'" in out
    status, out, err = run("AAPL", "AAPL")
    assert (status, out, err) == (1, "", "tradeloop: symbols may name each symbol once, got 'AAPL' 2 times\n")
