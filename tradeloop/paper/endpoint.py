"""The service as the bot sees it: two routes over HTTP, tried again while the service is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from tradeloop.errors import StoreError, TradeloopError
from tradeloop.paper.exchange import Fill, Target

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_TIMEOUT_SECONDS = 10.0
_AWAY = (502, 503, 504)
_AT_ONCE = 500


@dataclass(frozen=True)
class Answers:
    """What was asked, what is wanted, and how many answers declined to say."""

    targets: dict[str, Target]
    asked: int
    abstained: int


class Endpoint:
    """A client of the service.

    Parameters
    ----------
    client
        With the service's address as base url.
    patience
        Seconds for which a request is tried again when the service is away or answers 503.
    token
        For ``POST /outcomes`` where the service wants one.
    sleep
        How to wait.
    """

    def __init__(
        self,
        client: httpx.Client,
        *,
        patience: float,
        token: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._patience = patience
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._sleep = sleep

    def predict(self, symbols: Sequence[str], as_of: datetime | None) -> Answers:
        """Ask for the verdict on each symbol.

        Raises
        ------
        StoreError
            The service stayed away for longer than the patience.
        TradeloopError
            It refused the question; one line says why.
        """
        question: dict[str, Any] = {"symbols": list(symbols)}
        if as_of is not None:
            question["as_of"] = as_of.isoformat()
        answer = self._post("/predict", question)
        targets: dict[str, Target] = {}
        abstained = 0
        for entry in answer["predictions"]:
            if entry["status"] != 200:
                raise TradeloopError(str(entry["error"]))
            trades = entry["verdict"] == "trade"
            abstained += not trades
            side = (1 if entry["side"] == "long" else -1) if trades else 0
            targets[entry["symbol"]] = Target(side, entry["prediction_id"])
        return Answers(targets, len(targets), abstained)

    def report(self, fills: Sequence[Fill]) -> dict[str, tuple[str, str | None]]:
        """Report fills; return status and reason of each by its id. Errors as `predict`."""
        found: dict[str, tuple[str, str | None]] = {}
        for first in range(0, len(fills), _AT_ONCE):
            body = {"fills": [_body(fill) for fill in fills[first : first + _AT_ONCE]]}
            for result in self._post("/outcomes", body)["fills"]:
                found[result["fill_id"]] = (result["status"], result["reason"])
        return found

    def _post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        waited, wait = 0.0, _FIRST_WAIT
        while True:
            problem = ""
            try:
                response = self._client.post(path, json=content, headers=self._headers, timeout=_TIMEOUT_SECONDS)
            except httpx.InvalidURL as error:
                raise TradeloopError(f"{self._client.base_url} is no address of a service: {error}") from None
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}"
            else:
                if response.status_code not in _AWAY:
                    return self._content(path, response)
                problem = f"{response.status_code} {response.text[:200]}"
            if waited >= self._patience:
                where = f"{str(self._client.base_url).rstrip('/')}{path}"
                raise StoreError(f"no service answers at {where} for {waited:.0f} s ({problem})")
            self._sleep(wait)
            waited, wait = waited + wait, min(2.0 * wait, _LONGEST_WAIT)

    def _content(self, path: str, response: httpx.Response) -> dict[str, Any]:
        key = "predictions" if path == "/predict" else "fills"
        try:
            content: dict[str, Any] = response.json()
            if key in content:  # a report of which nothing was taken is an answer, too
                return content
            problem = str(content["error"])
        except (ValueError, KeyError, TypeError):
            raise TradeloopError(f"what answers at {response.url} is not tradeloop: {response.status_code}") from None
        raise TradeloopError(f"{path} answered {response.status_code}: {problem}")


def _body(fill: Fill) -> dict[str, Any]:
    names = ("fill_id", "prediction_id", "side", "quantity", "price", "expected_price", "fee", "pnl")
    return {**{name: getattr(fill, name) for name in names}, "filled_at": fill.filled_at.isoformat()}
