"""Commands around serving: start the service, ask it, replay an answer, fill the online store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tradeloop.cli.output import Json, day_and_time, moment, opened, project, show_facts, show_json, show_table
from tradeloop.config import Params, parse_interval
from tradeloop.errors import RegistryError, StoreError, TradeloopError
from tradeloop.layout import HOME_VARIABLE, Layout

URL = "http://127.0.0.1:3000"
URL_VARIABLE = "TRADELOOP_URL"
_SERVICE = "bentos.service:Tradeloop"
_TIMEOUT_SECONDS = 10.0


def serve(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(help="Processes that answer.", min=1)] = 1,
    source: Annotated[bool, typer.Option("--source", help="Serve this code, not the champion's Bento.")] = False,
) -> None:
    """Serve the champion over HTTP until interrupted; first put right what live state may have lost."""
    from tradeloop.publishing import ensure_published

    layout, params = project()
    champion = ensure_published(layout, params)
    if champion is None:
        raise RegistryError(f"market {params.market} has no champion: run `make repro`, or `tradeloop promote VERSION`")
    target, folder = _target(layout, params, champion.hash, source)
    os.environ |= {
        HOME_VARIABLE: str(layout.root),
        "BENTOML_HOME": str(layout.bentoml),
        "BENTOML_DO_NOT_TRACK": "True",
        "TRADELOOP_WORKERS": str(workers),
    }
    print(f"serving {params.market} with model {champion.version} from {target}", flush=True)
    os.chdir(folder)
    command = [sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)


def predict(
    symbols: Annotated[list[str], typer.Argument(help="Symbols of the market.")],
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, help="Where the service listens.")] = URL,
    as_of: Annotated[str | None, typer.Option(help="On the replay clock: an ISO time with its UTC offset.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Compute here, without the service.")] = False,
    as_json: Json = False,
) -> None:
    """Ask for the forecast of each symbol; exit status 1 if one is unknown."""
    answer = _predict_here(symbols, as_of) if local else _ask(url, symbols, as_of)
    if as_json:
        show_json(answer)
    else:
        _show_answer(answer)
    if any(entry["status"] != 200 for entry in answer["predictions"]):
        raise typer.Exit(1)


def replay(prediction_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Compute a logged prediction again from the log and its bundle; exit status 1 unless it matches to 1e-6."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.replay import replay as replay_logged

    layout, params = project()
    with opened(layout, params) as (database, _):
        outcome = replay_logged(prediction_id, database, BundleStore(layout, params).get)
    logged = {k: outcome.logged[k] for k in ("symbol", "asked_at", "feature_time", "model")}
    if as_json:
        compared = {k: {"logged": outcome.logged[k], "recomputed": v} for k, v in outcome.recomputed.items()}
        show_json({"id": prediction_id, **logged, "matches": outcome.matches, "error": outcome.error, **compared})
    else:
        rows = [(name, outcome.logged[name], value) for name, value in outcome.recomputed.items()]
        title = f"{logged['symbol']} at {day_and_time(logged['asked_at'])} UTC by model {logged['model'][:12]}"
        show_table(("", "logged", "computed again"), rows, title=title)
        print(f"{'matches' if outcome.matches else 'DIFFERS'}: largest difference {outcome.error:.3g}")
    if not outcome.matches:
        raise typer.Exit(1)


def publish(as_json: Json = False) -> None:
    """Fill the online store from data/features, and promote the packaged bundle unless something speaks against it."""
    from tradeloop.publishing import publish as publish_bundle

    layout, params = project()
    report = publish_bundle(layout, params)
    if as_json:
        show_json(report)
    else:
        show_facts(report.items())


def _target(layout: Layout, params: Params, champion: str, source: bool) -> tuple[str, Path]:
    """Return what `bentoml serve` shall serve, and the folder to start it in."""
    from tradeloop.bundle_store import BundleStore

    tag = BundleStore(layout, params).tag(champion)
    if not source and (layout.bentoml / "bentos" / tag.replace(":", "/") / "bento.yaml").is_file():
        return tag, layout.root
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "bentos" / "service.py").is_file():
        raise StoreError(f"there is no Bento {tag}, and no {folder / 'bentos/service.py'} to serve instead")
    return _SERVICE, folder


def _ask(url: str, symbols: list[str], as_of: str | None) -> dict[str, Any]:
    import httpx

    question: dict[str, Any] = {"symbols": symbols} | ({"as_of": as_of} if as_of else {})
    try:
        response = httpx.post(f"{url.rstrip('/')}/predict", json=question, timeout=_TIMEOUT_SECONDS)
        content = response.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreError(f"no service answers at {url} ({error}): start one with `tradeloop serve`") from None
    except ValueError:
        raise StoreError(
            f"what answers at {url} is not tradeloop: {response.status_code} {response.text[:80]!r}"
        ) from None
    if response.status_code != 200 or "predictions" not in content:
        raise TradeloopError(str(content.get("error", f"{url} answered {response.status_code}")))
    answer: dict[str, Any] = content
    return answer


def _predict_here(symbols: list[str], as_of: str | None) -> dict[str, Any]:
    """Answer as the service does, in this process; logged likewise."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.prediction_log import PredictionLog
    from tradeloop.predictor import Predictor
    from tradeloop.serving.answers import entry
    from tradeloop.serving.features import FeatureReader

    layout, params = project()
    at = moment(as_of, "--as-of") if as_of else None
    with opened(layout, params) as (database, registry):
        champion = registry.champion()
        if champion is None:
            raise RegistryError(f"market {params.market} has no champion: run `make repro`")
        bundle = BundleStore(layout, params).get(champion.hash)
        reader = FeatureReader(layout, params)
        reader.prepare(bundle.schema)
        asked = reader.as_of(symbols, bundle.schema, at) if at else reader.read(symbols, bundle.schema)
        max_age, mode = parse_interval(params.active.max_age), reader.clock.mode
        predictions = Predictor(bundle).predict(symbols, asked.rows, now=asked.now, max_age=max_age, clock=mode)
        with PredictionLog(database) as log:
            log.append(predictions).result()
        reader.close()
    return {
        "market": params.market,
        "clock": {"mode": mode, "now": asked.now},
        "model": {"version": champion.version, "hash": champion.hash, "source": "registry"},
        "predictions": [entry(prediction) for prediction in predictions],
    }


def _show_answer(answer: dict[str, Any]) -> None:
    rows = [_answer_row(entry) for entry in answer["predictions"]]
    clock, model = answer["clock"], answer["model"]
    title = f"{answer['market']} at {day_and_time(clock['now'])} UTC ({clock['mode']} clock), model {model['version']}"
    columns = ("symbol", "verdict", "side", "p(up)", "return", "range", "as of (UTC)", "why", "id")
    show_table(columns, rows, title=title)


def _answer_row(entry: dict[str, Any]) -> tuple[Any, ...]:
    if entry["status"] != 200:
        return (entry["symbol"], "unknown", *(None,) * 5, entry["error"], None)
    p_up = None if entry["p_up"] is None else f"{entry['p_up']:.3f}"
    forecasts = (_interval(entry["expected_return"], "+.4f"), _interval(entry["expected_range"], ".4f"))
    why, at = ", ".join(entry["reasons"]) or None, day_and_time(entry["as_of"])
    return (entry["symbol"], entry["verdict"], entry["side"], p_up, *forecasts, at, why, entry["prediction_id"])


def _interval(forecast: dict[str, float | None], form: str) -> str | None:
    value, low, high = forecast["value"], forecast["low"], forecast["high"]
    if value is None or low is None or high is None:
        return None
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
