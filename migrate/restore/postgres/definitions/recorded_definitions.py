"""What the JSON files of a source's definitions hold, by which they are checked when a bundle is read. docs/FORMAT.md
says what each value means.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

Privilege = tuple[str, str, bool]
"""A role (empty for PUBLIC), its privilege, and whether it may grant that to others."""


class RecordedSequence(TypedDict):
    """An entry of ``sequences.json``."""

    schema: str
    name: str
    last_value: int
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
    bootstrap: NotRequired[bool]
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: NotRequired[int]
    valid_until: NotRequired[str | None]
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
    bootstrap: NotRequired[bool]
    privileges: NotRequired[list[Privilege] | None]
    comment: NotRequired[str | None]
    connection_limit: NotRequired[int]


class RecordedLargeObject(TypedDict):
    """An entry of ``large-objects.json``."""

    oid: int
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
    state: str
