"""A source's definitions as they lie in the bundle: the sections of pg_dump, and JSON files, which are checked by these
types when a bundle is read. docs/FORMAT.md says what each value means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired, TypedDict, TypeVar

from msgspec import Meta, Struct

from migrate.bundle import canonical_json, layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError

_Entry = TypeVar("_Entry")

Privilege = tuple[str, str, bool]
"""A role (empty for PUBLIC), its privilege, and whether it may grant that to others."""


_Limit = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class RecordedSequence(TypedDict):
    """An entry of ``sequences.json``."""

    schema: str
    name: str
    last_value: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    is_called: bool


class Membership(TypedDict):
    """A group of a role."""

    role: str
    admin: NotRequired[bool]
    inherit: NotRequired[bool | None]
    set: NotRequired[bool | None]


class RecordedRole(TypedDict):
    """An entry of ``roles.json``."""

    name: str
    bootstrap: bool
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: _Limit
    valid_until: str | None
    comment: NotRequired[str | None]
    settings: NotRequired[list[str]]
    memberships: NotRequired[list[Membership]]
    member_of: NotRequired[list[str]]


class RecordedSettings(TypedDict):
    """An entry of ``settings.json``. ``role``: null for everyone."""

    role: str | None
    settings: list[str]


class RecordedDatabase(TypedDict):
    """The entry of ``database.json``."""

    owner: str
    bootstrap: bool
    privileges: list[Privilege] | None
    comment: str | None
    connection_limit: _Limit


class RecordedLargeObject(TypedDict):
    """An entry of ``large-objects.json``."""

    oid: Annotated[int, Meta(gt=0, lt=2**32)]
    owner: str
    privileges: list[Privilege] | None
    comment: str | None


class ExtensionMember(TypedDict):
    """An object of an extension."""

    type: str
    name: str
    identity: str
    schema: NotRequired[str | None]
    comment: NotRequired[str | None]
    owner: NotRequired[str | None]
    given_to: NotRequired[str | None]
    definition: NotRequired[str | None]
    clauses: NotRequired[list[str] | None]
    settings: NotRequired[list[str] | None]
    body: NotRequired[str | None]


class RecordedExtension(TypedDict):
    """An entry of ``extensions.json``. ``owner``: null for the server's first superuser."""

    name: str
    schema: str
    version: str
    owner: NotRequired[str | None]
    members: list[ExtensionMember]


class ConstraintTrigger(TypedDict):
    """An entry of ``constraint-triggers.json``."""

    schema: str
    table: str
    constraint_schema: str
    constraint_table: str
    constraint: str
    function: str
    name: str
    state: Literal["O", "D", "R", "A"]


_NEEDED = (
    "pre-data.sql",
    "post-data.sql",
    "pre-data-portable.sql",
    "post-data-portable.sql",
    "sequences.json",
    "roles.json",
)


class Definitions(Struct, frozen=True):
    """A source's definitions as they lie in the bundle, checked. ``files`` by name, e.g. ``pre-data.sql``; their keys
    begin with ``prefix``.
    """

    files: Mapping[str, bytes]
    prefix: str

    @staticmethod
    def read(reader: BundleReader, source: str) -> Definitions:
        """Raises ``DamageError``."""
        prefix = layout.source_file(source, "schema/")
        files = {
            file.key.removeprefix(prefix): reader.read_checked(file)
            for file in reader.source_files(source, "schema/")
        }
        for name in _NEEDED:
            if name not in files:
                raise DamageError(prefix + name, expected="a file", found="nothing")
        return Definitions(files, prefix)

    def section(self, name: str, *, portable: bool) -> bytes:
        """Return the SQL of ``pre-data`` or ``post-data``."""
        return self.files[f"{name}-portable.sql" if portable else f"{name}.sql"]

    def _entries(self, name: str, kind: type[_Entry]) -> Sequence[_Entry]:
        """Return what a list says, empty where the bundle has none. Raises ``DamageError``."""
        key, data = self.prefix + name, self.files.get(name, b"[]")
        if _NUL.search(data):
            raise DamageError(key, expected="texts without zero bytes", found="one")
        return canonical_json.decode_entries(data, key, kind)

    def roles(self) -> Sequence[RecordedRole]:
        """Return the roles that own or may use something."""
        return self._entries("roles.json", RecordedRole)

    def settings(self) -> Sequence[RecordedSettings]:
        """Return what is set for the database, and for roles in it."""
        return self._entries("settings.json", RecordedSettings)

    def database(self) -> RecordedDatabase | None:
        """Return the database's owner, privileges, comment and connection limit, where the bundle has them."""
        return next(iter(self._entries("database.json", RecordedDatabase)), None)

    def large_objects(self) -> Sequence[RecordedLargeObject]:
        """Return owner, privileges and comment of every large object, where pre-data does not have them."""
        return self._entries("large-objects.json", RecordedLargeObject)

    def extensions(self) -> Sequence[RecordedExtension]:
        """Return the extensions with their members, where the bundle has them."""
        return self._entries("extensions.json", RecordedExtension)

    def constraint_triggers(self) -> Sequence[ConstraintTrigger]:
        """Return the triggers of constraints that fire otherwise than new ones do."""
        return self._entries("constraint-triggers.json", ConstraintTrigger)

    def sequences(self) -> Sequence[RecordedSequence]:
        """Return the sequences' values."""
        return self._entries("sequences.json", RecordedSequence)
