"""A service with the contract of `POST /predict` and `POST /outcomes`, in memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Service:
    """Answers by the hash of symbol and time: long, short or nothing, the same to the same question.

    Attributes
    ----------
    fills
        What was reported, by id.
    predictions
        Every id that was given out.
    repeats
        How many reports came again.
    """

    fills: dict[str, dict[str, Any]] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)
    repeats: int = 0
    failures: list[int] = field(default_factory=list)

    def answer(self, path: str, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body."""
        if self.failures:
            status = self.failures.pop(0)
            return status, {"error": f"failing with {status}"}
        if path == "/predict":
            return 200, {"predictions": [self._predict(symbol, content.get("as_of")) for symbol in content["symbols"]]}
        return 200, {"fills": [self._take(fill) for fill in content["fills"]]}

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer as a transport of httpx."""
        status, body = self.answer(request.url.path, json.loads(request.content))
        return httpx.Response(status, json=body)

    def _predict(self, symbol: str, as_of: str | None) -> dict[str, Any]:
        draw = hashlib.sha256(f"{symbol}/{as_of}".encode()).digest()[0] % 3
        name = f"p{len(self.predictions)}"
        self.predictions.append(name)
        side = ("long", "short", "long")[draw]
        verdict = "abstain" if draw == 2 else "trade"
        return {"symbol": symbol, "status": 200, "prediction_id": name, "verdict": verdict, "side": side}

    def _take(self, fill: dict[str, Any]) -> dict[str, Any]:
        known = self.fills.setdefault(fill["fill_id"], fill)
        status = "accepted" if known is fill else "duplicate" if known == fill else "contradicts"
        self.repeats += status == "duplicate"
        return {"fill_id": fill["fill_id"], "status": status, "reason": None, "slippage_bps": None}
