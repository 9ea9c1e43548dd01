"""What a change of models brings with it: features made ready, a count, a line on the record."""

from __future__ import annotations

import logging

from tradeloop.bundle import Bundle
from tradeloop.errors import StoreError
from tradeloop.serving.champion import Loaded, Refusal
from tradeloop.serving.features import FeatureReader
from tradeloop.serving.incidents import Incidents
from tradeloop.serving.telemetry import Telemetry

log = logging.getLogger(__name__)


class Changes:
    """The service's `Listener`."""

    def __init__(self, features: FeatureReader, telemetry: Telemetry, incidents: Incidents) -> None:
        self._features = features
        self._telemetry = telemetry
        self._incidents = incidents
        self._first = True

    def require(self, bundle: Bundle) -> None:
        """Refuse to promote a bundle whose features are not to be had."""
        self._features.require(bundle)

    def takes_over(self, champion: Loaded) -> None:
        """Make the new champion's features ready. One without features abstains: better than the one replaced.

        For the first one the service does so itself: it is not ready before.
        """
        if not self._first:
            try:
                self._features.prepare(champion.schema)
            except StoreError as error:
                log.error("champion %s will abstain: %s", champion.version, error)
        self._first = False
        self._telemetry.serves(champion.version, champion.source)

    def joins(self, challenger: Loaded) -> None:
        """Make a challenger's features ready, where they are others than the champion's."""
        self._features.repair(challenger.schema)

    def refused(self, refusal: Refusal, *, challenger: bool) -> None:
        """Count a model of the registry that cannot be loaded, and put it on the record."""
        if not challenger:
            self._telemetry.refused()
        kind = "challenger_refused" if challenger else "champion_refused"
        self._incidents.note(kind, f"{refusal.version}: {refusal.reason}")
