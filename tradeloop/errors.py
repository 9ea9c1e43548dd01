"""The exceptions a person may meet; each message is one line that names the value and the rule."""

from __future__ import annotations


class TradeloopError(Exception):
    """Base of all errors that tradeloop raises on purpose; the message is meant for a person."""


class ConfigError(TradeloopError):
    """params.yaml, or an environment variable, breaks a rule."""


class DataError(TradeloopError):
    """A market data file or frame breaks the bar contract."""


class SchemaMismatch(TradeloopError):
    """Features were made under another schema than the one asked for."""


class ModelError(TradeloopError):
    """A model cannot be fitted, exported or read."""


class BundleError(TradeloopError):
    """A bundle is missing, truncated, edited or malformed."""


class RegistryError(TradeloopError):
    """A lifecycle event is not allowed in the present state."""


class StoreError(TradeloopError):
    """The feature store or the state database cannot be used."""


class AdaptationError(TradeloopError):
    """A snapshot of online adaptation is malformed, out of bounds, or for another bundle."""


class TrainingError(TradeloopError):
    """A retraining cannot be prepared, or its workspace cannot be used."""


class JobError(TradeloopError):
    """There is no such job, or it is past what is asked of it."""


class FillError(TradeloopError):
    """A fill that the bot reported breaks a rule."""
