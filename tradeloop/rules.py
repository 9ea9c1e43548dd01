"""What may happen to a version next.

Each rule returns whether there is anything to do (False: it is so already), and raises RegistryError, one line that
names the version and the rule, where it is not allowed.
"""

from __future__ import annotations

from tradeloop.errors import RegistryError
from tradeloop.lifecycle import SERVING, Lifecycle, ModelRecord
from tradeloop.routes import Mode, require_room


def may_quarantine(record: ModelRecord) -> bool:
    """Let anything but the champion be withdrawn; a challenger leaves its route with that."""
    if record.state in SERVING:
        raise RegistryError(f"{record.version} is the champion: roll back before it is quarantined")
    return record.state != "quarantined" and not (record.state == "archived" and record.before == "quarantined")


def may_promote(record: ModelRecord, *, force: bool) -> bool:
    """Let anything serve but what is quarantined or archived, and what was rolled back only by force."""
    if record.state in SERVING:
        return False
    _require_sound(record, "promoted")
    if "rolled_back" in (record.state, record.before) and not force:
        raise RegistryError(f"{record.version} was rolled back ({record.reason}): promoting it again needs force")
    return True


def may_stage(state: Lifecycle, record: ModelRecord, mode: Mode, share: float) -> bool:
    """Let a version challenge the champion, if there is one; what was rolled back may watch, but not answer."""
    require_room(state.routes, record.hash, mode, share)
    if state.champion is None:
        raise RegistryError(f"{record.version} cannot be staged: there is no champion to challenge, promote one first")
    if record.state in SERVING:
        raise RegistryError(f"{record.version} is the champion: it answers already")
    _require_sound(record, "staged")
    if mode != "shadow" and "rolled_back" in (record.state, record.before):
        raise RegistryError(f"{record.version} was rolled back ({record.reason}): it may be staged as shadow only")
    route = state.route(record.hash)
    return route is None or (route.mode, route.share) != (mode, share)


def may_unstage(record: ModelRecord) -> bool:
    """Let a challenger stop; nothing else has a part to leave."""
    return record.state == "staging"


def may_demote(state: Lifecycle, record: ModelRecord) -> bool:
    """Let a challenger stop, or the champion if another one was before it."""
    if record.state in SERVING:
        state.before(record, None)
        return True
    return record.state == "staging"


def may_degrade(record: ModelRecord) -> bool:
    """Let the champion be flagged, and nothing else: a challenger that is bad is demoted."""
    if record.state not in SERVING:
        raise RegistryError(f"only the champion can be degraded: {record.version} is {record.state}")
    return record.state == "production"


def may_recover(record: ModelRecord) -> bool:
    """Take the flag from the champion."""
    if record.state not in SERVING:
        raise RegistryError(f"only the champion can recover: {record.version} is {record.state}")
    return record.state == "degraded"


def may_archive(record: ModelRecord) -> bool:
    """Let what takes no part be put away."""
    if record.state in SERVING:
        raise RegistryError(f"{record.version} is the champion: it cannot be archived")
    if record.state == "staging":
        raise RegistryError(f"{record.version} is a challenger: unstage it before it is archived")
    return record.state != "archived"


def may_unarchive(record: ModelRecord) -> bool:
    """Let what is archived come back."""
    return record.state == "archived"


def require_champion(state: Lifecycle, expected: str | None) -> None:
    """Raise RegistryError if the champion is another than the hash that a decision was made about."""
    champion = state.champion
    if expected is not None and (champion is None or champion.hash != expected):
        found = champion.version if champion else "none"
        wanted = state.records[expected].version if expected in state.records else expected[:12]
        raise RegistryError(f"the champion is {found} by now, this was decided when it was {wanted}")


def _require_sound(record: ModelRecord, what: str) -> None:
    if record.state == "quarantined":
        raise RegistryError(f"{record.version} is quarantined and cannot be {what}: {record.reason}")
    if record.state == "archived":
        raise RegistryError(f"{record.version} is archived and cannot be {what}: take it out of the archive first")
