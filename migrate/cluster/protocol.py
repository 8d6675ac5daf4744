"""What a worker is sent: plain JSON with a version, without secrets and without anything that is open. And errors, on
their way back: as plain data, and as themselves again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from msgspec import NODEFAULT, Struct, field
from msgspec.structs import fields

from exporters.api import Json
from exporters.limits import Limits
from exporters.selection import Selection
from exporters.structs import as_dict
from migrate.bundle.object_index import ObjectRow
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.errors import DamageError, MoveoutError, SourceError, UsageError
from migrate.export.unit_runner import UnitRules
from migrate.restore.objects.copy import History
from migrate.restore.objects.destination_terms import Terms

VERSION = 5


class Reach(Struct, frozen=True):
    """How a location or a source is reached: its URL, and by which references a worker finds the secrets on its own
    machine.
    """

    url: str
    secrets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, endpoint: Endpoint) -> Reach:
        """Return how others reach an endpoint."""
        references = {name: _reference(secret) for name, secret in endpoint.secrets.items()}
        return cls(absolute(endpoint.url), references)

    def endpoint(self) -> Endpoint:
        """Return the endpoint as it is reached from here."""
        return Endpoint(self.url, {name: Secret(reference) for name, reference in self.secrets.items()})


def absolute(url: str) -> str:
    """Return a location's URL so that it means the same in another working directory."""
    return url if "://" in url else str(Path(url).expanduser().absolute())


def _reference(secret: Secret) -> str:
    kind, _, rest = secret.reference.partition(":")
    if kind != "file":
        return secret.reference
    return f"file:{(secret.directory / Path(rest).expanduser()).absolute()}"


class ExportJob(Struct, frozen=True):
    """What all batches of one source share. ``id`` is this run's of them; ``lease`` is the lead's; ``limited``: bytes
    may only pass by a share of the lead's budget. ``rules``: see ``UnitRunner``.
    """

    id: str
    location: Reach
    lease: str
    limited: bool
    name: str
    source: Reach
    selection: Json
    limits: Json
    ticket: Json
    rules: UnitRules
    kind: Literal["export"] = "export"


class TransferJob(Struct, frozen=True):
    """What all batches of one transfer share: ``location`` is the destination, ``workers`` are threads for each
    batch.
    """

    id: str
    location: Reach
    lease: str
    limited: bool
    origin: Reach
    workers: int
    recheck: bool = False
    kind: Literal["transfer"] = "transfer"


class RestoreJob(Struct, frozen=True):
    """What all batches of one bucket's restore share: ``origin`` is the bundle, ``location`` where in the
    ``destination`` the lease lies. The rest is as in ``migrate.restore.objects.copy.ObjectCopy``.
    """

    id: str
    location: Reach
    lease: str
    limited: bool
    name: str
    origin: Reach
    destination: Reach
    terms: Json
    versions: bool
    kind: Literal["restore"] = "restore"


class RowsJob(Struct, frozen=True):
    """What all parts of one database's restore share: ``location`` is the bundle, ``lease`` the server's
    process whose session holds the destination's lock.
    """

    id: str
    location: Reach
    lease: str
    limited: bool
    name: str
    destination: Reach
    kind: Literal["rows"] = "rows"


Job = ExportJob | TransferJob | RestoreJob | RowsJob


def new_id() -> str:
    """Return an id for a job."""
    return secrets.token_hex(8)


_JOBS: Mapping[str, type[Job]] = {
    "export": ExportJob,
    "transfer": TransferJob,
    "restore": RestoreJob,
    "rows": RowsJob,
}


class Order(Struct, frozen=True):
    """A job and the pieces of it that are to be done now; each piece has an ``id``."""

    job: Job
    pieces: Sequence[Json]


def encode(order: Order) -> str:
    """Return an order as text."""
    return json.dumps({"version": VERSION, "job": as_dict(order.job), "pieces": list(order.pieces)})


def decode(text: str) -> Order:
    """Parse an order. Raises ``UsageError`` where it was written by another version."""
    value: dict[str, Any] = json.loads(text)
    if value.get("version") != VERSION:
        raise UsageError(
            f"a worker of version {VERSION} received orders of version {value.get('version')}",
            next_step="install the same moveout on all machines",
        )
    job = dict(value["job"])
    for name in ("location", "source", "origin", "destination"):
        if name in job:
            job[name] = Reach(**job[name])
    if "rules" in job:
        job["rules"] = UnitRules(**job["rules"])
    return Order(_JOBS[job["kind"]](**job), value["pieces"])


def selection_json(selection: Selection) -> Json:
    """Return a choice of items as plain JSON."""
    return {name: _plain(value) for name, value in as_dict(selection).items()}


def selection_of(value: Json) -> Selection:
    """Return the choice again."""
    moments = {name: _moment(value[name]) for name in ("newer_than", "older_than")}
    globs = {name: tuple(value[name]) for name in ("include", "exclude")}
    return Selection(**{**value, **moments, **globs})


def limits_json(limits: Limits) -> Json:
    """Return the limits of a source as plain JSON."""
    return {name: _plain(value) for name, value in as_dict(limits).items()}


def limits_of(value: Json) -> Limits:
    """Return the limits again."""
    return Limits(**{**value, "deadline": _moment(value["deadline"])})


def terms_json(terms: Terms) -> Json:
    """Return the terms of a destination as plain JSON."""
    return {name: _plain(value) for name, value in as_dict(terms).items()}


def terms_of(value: Json) -> Terms:
    """Return the terms again."""
    return Terms(**{**value, "now": datetime.fromisoformat(value["now"])})


def batch_json(batch: Sequence[History]) -> list[Json]:
    """Return objects to be written as plain JSON."""
    return [
        {"key": history.key, "before": history.before, "rows": [_row(row) for row in history.rows]}
        for history in batch
    ]


def batch_of(value: Sequence[Json]) -> list[History]:
    """Return the objects again."""
    return [
        History(history["key"], [_row_of(row) for row in history["rows"]], history["before"])
        for history in value
    ]


_USUAL = {
    field.name: field.default if field.default is not NODEFAULT else field.default_factory()
    for field in fields(ObjectRow)
    if not field.required
}


def error_json(error: Exception) -> Json:
    """Return an error as plain data."""
    encoded: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, DamageError):
        fields = {"key": error.key, "expected": error.expected, "found": error.found}
        return encoded | fields | {"next": error.next_step}
    if isinstance(error, MoveoutError):
        return encoded | {"message": error.explanation, "about": error.about, "next": error.next_step}
    return encoded | {"message": repr(error), "about": "", "next": ""}


def error_of(encoded: Json) -> MoveoutError:
    """Return the error that was sent. One of no known kind becomes a ``SourceError``, as if it had come up here."""
    known = {kind.__name__: kind for kind in _kinds_of_errors()}
    kind = known.get(encoded["error"], SourceError)
    if issubclass(kind, DamageError):
        return kind(
            encoded["key"], expected=encoded["expected"], found=encoded["found"], next_step=encoded["next"]
        )
    return kind(encoded["message"], about=encoded["about"], next_step=encoded["next"])


def _kinds_of_errors() -> Iterator[type[MoveoutError]]:
    left: list[type[MoveoutError]] = [MoveoutError]
    while left:
        kind = left.pop()
        yield kind
        left.extend(kind.__subclasses__())


def _row(row: ObjectRow) -> Json:
    """Return what is not as usual: rows travel by the million."""
    values = {name: _plain(getattr(row, name)) for name in row.__struct_fields__}
    return {name: value for name, value in values.items() if name not in _USUAL or value != _USUAL[name]}


def _row_of(value: Json) -> ObjectRow:
    parts = {name: tuple(value[name]) for name in ("part_sizes", "part_numbers") if name in value}
    return ObjectRow(**{**value, **parts, "modified": _moment(value["modified"])})


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
