"""The settings of the source's bucket, at the destination's: written by the code of a restore, and again when they have
changed. What the destination has set itself is not touched by default.

    settings.json      which settings this sync has written, and what the destination has not, with the reason
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Loss
from migrate.bundle import canonical_json
from migrate.errors import DamageError, GoneError, MoveoutError, UnreachableError
from migrate.restore.objects.bucket_settings import FIRST, UNREAD, Settings, is_of_the_host
from migrate.storage.api import Store
from migrate.storage.s3.metadata.acl import grants
from migrate.storage.s3.metadata.bucket_configuration import is_held, renamed, same_setting
from migrate.sync.outcome import SETTING_REMOVED, SETTING_WRITTEN
from migrate.sync.plan import Sides

KEPT = "settings.json"
_UNREADABLE = "it could not be read, or these credentials may not"
_LEFT = "the destination's settings are left alone, as --settings leave says"
_OWN = (
    "the destination has its own, which this sync did not write; --settings replace puts the source's there"
)
_OTHERS = "the bucket holds objects that this sync did not write; --settings replace writes it nevertheless"
_LOCKS = "it would lock the record of the sync, which lies in the bucket; --record LOCATION, or set it after the move"
SUSPEND_LATER = (
    "a sync with --history needs the destination to keep versions; suspend them there after the last run"
)
"""Why a destination keeps versions although the source does not any more."""
_OF_HOLD = "a hold on the source sets it there; what a sync wrote before stays"
_GONE = "a sync wrote it, and the source does not have it any more; --delete removes it at the destination"
_STAYS = "a sync wrote it, and the source does not have it any more; there is no way to remove it"


class SettingsPolicy(StrEnum):
    """What may happen to the destination's settings."""

    WRITE = "write"
    """What the destination has not set, or a sync wrote, is written."""
    REPLACE = "replace"
    """What the destination has set itself, too."""
    LEAVE = "leave"


class Decision(Struct, frozen=True):
    """What is to be done: settings to ``write`` as the source has them, names to ``remove``; and why the
    destination's stay as they are where they are not the same.
    """

    write: Mapping[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    stay: Mapping[str, str] = field(default_factory=dict)


class Rules(Struct, frozen=True):
    """What decides about a setting. ``delete``: remove what the source does not have any more. ``others``: the bucket
    holds objects that no sync has written. ``inside``: the record lies in the bucket. ``history``: older versions are
    copied, too. ``held``: a hold is on the source.
    """

    policy: SettingsPolicy = SettingsPolicy.WRITE
    delete: bool = False
    others: bool = False
    inside: bool = False
    history: bool = False
    held: bool = False

    def decide(
        self,
        source_settings: Mapping[str, Any],
        new: Mapping[str, Any],
        destination_settings: Mapping[str, Any],
        written_settings: Mapping[str, Any],
    ) -> Decision:
        """Return what to write and what to remove.

        ``source_settings`` is what the source has, ``new`` the same under the destination's name,
        ``destination_settings`` what the destination has, ``written_settings`` what a sync wrote there.
        """
        write, stay, remove = {}, {}, []
        for name, value in new.items():
            if same_setting(name, destination_settings.get(name), value):
                continue
            if reason := self._against(
                name, value, destination_settings.get(name), written_settings.get(name)
            ):
                stay[name] = reason
            else:
                write[name] = source_settings[name]
        for name, value in written_settings.items():
            if name not in source_settings and same_setting(name, destination_settings.get(name), value):
                if self.delete and self.policy != SettingsPolicy.LEAVE:
                    remove.append(name)
                else:
                    stay[name] = _GONE
        return Decision(write, tuple(remove), stay)

    def _against(self, name: str, value: Any, current: Any, written: Any) -> str:
        """Return the reason not to write a setting, or an empty string."""
        if self.policy == SettingsPolicy.LEAVE:
            return _LEFT
        if name == "object-lock" and self.inside and _rule(value):
            return _LOCKS
        if name == "versioning" and self.history:
            return SUSPEND_LATER
        if self.held and name == "versioning" and written and same_setting(name, current, written):
            return _OF_HOLD
        if self.policy == SettingsPolicy.REPLACE:
            return ""
        if not is_unset(name, current) and not (written and same_setting(name, current, written)):
            return _OWN
        return _OTHERS if self.others else ""


def is_unset(name: str, value: Any) -> bool:
    """Tell whether a setting has the value that every new bucket has."""
    if not value:
        return True
    if name == "acl":
        return not grants(value)
    if name == "object-lock":
        return not _rule(value)
    if name == "encryption":  # Amazon S3 encrypts every bucket so (user guide, "Default encryption")
        rules = value.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        return all(_default(rule).get("SSEAlgorithm") == "AES256" for rule in rules)
    return False


def _rule(value: Mapping[str, Any]) -> Any:
    return value.get("ObjectLockConfiguration", {}).get("Rule")


def _default(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    default_encryption: Mapping[str, Any] = rule.get("ApplyServerSideEncryptionByDefault", {})
    return default_encryption


def read_source_settings(sides: Sides) -> Mapping[str, Any]:
    """Return the settings of the source's bucket; none where only a prefix is copied, or copied to."""
    return {} if sides.source.prefix or sides.destination.prefix else _plain(sides.source.configuration())


class BucketSettings:
    """The bucket settings in one sync. ``outcome_by_setting``: what was done about each setting that differed."""

    def __init__(self, sides: Sides, store: Store, rules: Rules, source_settings: Mapping[str, Any]) -> None:
        self._sides, self._store, self._rules = sides, store, rules
        recorded = _read(store)
        self._ours: dict[str, Any] = dict(recorded.get("written", {}))
        self._kept = [
            Loss(sides.destination.name, name, reason) for name, reason in recorded.get("losses", ())
        ]
        self.outcome_by_setting: dict[str, str] = {}
        self._source_settings = source_settings
        self._new = self._as_new()
        self._at_beginning = self._read_destination()

    @property
    def losses(self) -> list[Loss]:
        """The settings that the destination lacks, as far as that is known by now."""
        return self._kept

    def write_first(self, *, other_objects: bool) -> bool:
        """Write what must hold before objects are written; tell whether there was any."""
        decided = self._decide(self._at_beginning, other_objects=other_objects)
        chosen = {name: value for name, value in decided.write.items() if name in FIRST}
        self._write(chosen)
        return bool(chosen)

    def write_last(self, *, other_objects: bool) -> bool:
        """Write the other settings, remove obsolete ones, and record both. Tell whether the losses have changed."""
        if not self._source_settings and not self._ours:
            return False
        decided = self._decide(self._read_destination(), other_objects=other_objects)
        losses = [self._loss(name, reason) for name, reason in decided.stay.items()]
        losses += self._write(decided.write)
        losses += [self._loss(name, reason) for name in decided.remove if (reason := self._remove(name))]
        for name in UNREAD:
            losses += [self._loss(setting, _UNREADABLE) for setting in self._source_settings.get(name, ())]
        losses += Settings(
            self._source_settings, self._sides.source.name, self._sides.destination
        ).losses_before()
        self.outcome_by_setting |= {loss.property.removeprefix("bucket "): loss.reason for loss in losses}
        losses.sort(key=lambda loss: loss.property)
        differ = losses != self._kept
        self._kept = losses
        self._keep()
        return differ

    def foresee(self, *, other_objects: bool) -> list[str]:
        """Return the names of the settings that would be written or removed."""
        decided = self._decide(self._at_beginning, other_objects=other_objects)
        return sorted([*decided.write, *decided.remove])

    def _decide(self, destination_settings: Mapping[str, Any], *, other_objects: bool) -> Decision:
        source_settings = {name: self._source_settings[name] for name in self._new}
        held = is_held(self._source_settings.get("policy", {}))
        rules = replace(self._rules, others=other_objects, held=held)
        return rules.decide(source_settings, self._new, destination_settings, self._readable_ours())

    def _as_new(self) -> Mapping[str, Any]:
        """Return the source's settings that a destination may have, as they are in a bucket of its name."""
        return {
            name: new
            for name, value in self._source_settings.items()
            if name not in UNREAD and not is_of_the_host(name, value) and (new := self._renamed(name, value))
        }

    def _readable_ours(self) -> Mapping[str, Any]:
        """Return what a sync wrote, without what the source does not show now."""
        unread = {name for kind in UNREAD for name in self._source_settings.get(kind, ())}
        return {name: value for name, value in self._ours.items() if name not in unread}

    def _read_destination(self) -> Mapping[str, Any]:
        """Return what the destination has of these settings."""
        names = sorted({*self._new, *self._readable_ours()})
        if not names:
            return {}
        with ThreadPoolExecutor(len(names), thread_name_prefix="moveout-settings") as threads:
            values = threads.map(self._sides.destination.setting, names)
            return dict(zip(names, map(_plain, values), strict=True))

    def _renamed(self, name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        return renamed(name, value, self._sides.source.name, self._sides.destination.name)

    def _write(self, chosen: Mapping[str, Any]) -> list[Loss]:
        if not chosen:
            return []
        settings = Settings(chosen, self._sides.source.name, self._sides.destination)
        losses = [*settings.write_first(), *settings.write_last()]
        missing = {loss.property.removeprefix("bucket ") for loss in losses}
        written_now = {
            name: self._renamed(name, value) for name, value in chosen.items() if name not in missing
        }
        self._ours |= written_now
        self.outcome_by_setting |= dict.fromkeys(written_now, SETTING_WRITTEN)
        if written_now:
            self._keep()
        return losses

    def _remove(self, name: str) -> str:
        """Remove a setting; return why it stays, empty where it does not."""
        try:
            if not self._sides.destination.unset(name):
                return _STAYS
        except UnreachableError:
            raise
        except MoveoutError as exc:
            return f"the destination does not remove it ({exc})"
        del self._ours[name]
        self.outcome_by_setting[name] = SETTING_REMOVED
        return ""

    def _keep(self) -> None:
        losses = [[loss.property, loss.reason] for loss in self._kept]
        value = {"version": 1, "written": self._ours, "losses": losses}
        if value != _read(self._store):
            self._store.put(KEPT, canonical_json.encode_pretty(value))

    def _loss(self, name: str, reason: str) -> Loss:
        return Loss(self._sides.destination.name, f"bucket {name}", reason)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    plain_value: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain_value


def _read(store: Store) -> dict[str, Any]:
    try:
        return canonical_json.decode(store.read(KEPT), KEPT)
    except (GoneError, DamageError):
        return {}
