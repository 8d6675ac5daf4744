"""What a source defines and its destination lacks, or has otherwise: no log's definitions are repeated.

What has changed since the base, its server says by itself: it prints it otherwise than then. Only of such things, and
between servers of one version, is the text of both sides compared: other versions print the same thing otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import closing
from itertools import chain
from typing import Any

from exporters.mysql.connection import Connection, connect, folds_names, parse_url
from exporters.mysql.definitions.account_grants import OWN_ACCOUNT, grants_by_account
from exporters.mysql.definitions.definition_digests import (
    DEFINITIONS,
    PRIVILEGES,
    constant_text,
    digests_of,
    labelled,
    read_labelled,
)
from exporters.mysql.definitions.show_create import Definition, Missing
from exporters.mysql.errors import as_source_errors
from exporters.mysql.identifiers import quote_literal
from exporters.mysql.sessions.server_settings import server_settings
from migrate.bundle.reader import BundleReader
from migrate.changes.remainder import BothSides, DefinitionGaps
from migrate.restore.common.environment import note_other_settings
from migrate.restore.mysql.definitions.accounts import Grants, is_role
from migrate.restore.mysql.definitions.object_maker import without_definer
from migrate.restore.mysql.definitions.recorded_definitions import read_definitions
from migrate.restore.mysql.destination import connect_both, spelled_as

_OF_TABLES = frozenset({"table", "trigger"})
_SPACE = re.compile(r"\s+")
_WIDTH = re.compile(r"\b((?:tiny|small|medium|big)?int)\(\d+\)")
_NAME = re.compile(r"`(?:[^`]|``)*`")
_OLD_CHARSET = re.compile(r"\butf8mb3\b")
"""Newer servers print no width of integers, and another name of a charset."""
_HERE = "`"
"""What stands for the name of the database, which may be another one at the destination."""
_NOTHING: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()


def definition_gaps(
    sides: BothSides,
    skipped: Collection[str],
    log: Mapping[str, Any] | None,
) -> list[str]:
    """See ``exporters.engine.Engine.definition_gaps``. Raises ``SourceError``."""
    with connect_both(sides) as (reader, writer):
        return compare_definitions(reader, writer, skipped=skipped, log=log).missing


def definition_state(
    url: str, secrets: Mapping[str, str], reader: BundleReader | None, source: str
) -> dict[str, Any]:
    """See ``exporters.engine.Engine.definition_state``. What accounts may do is of now: the cutover compares all of it.
    Raises ``SourceError``, ``DamageError``.
    """
    exported = labelled(read_definitions(reader, source)) if reader else None
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        definitions = read_labelled(connection, Missing()) if exported is None else exported
        return {DEFINITIONS: digests_of(definitions, grants_by_account(connection))}


def compare_definitions(
    reader: Connection,
    writer: Connection,
    *,
    skipped: Collection[str],
    log: Mapping[str, Any] | None,
    is_all_access: bool = False,
) -> DefinitionGaps:
    """Return how the definitions of both sides differ. Nothing of tables ``skipped`` is named. ``is_all_access``:
    what accounts may do with the database is compared also where it has not changed since the base. Raises the driver's
    errors.
    """
    hidden, source_hidden = Missing(), Missing()
    source = read_labelled(reader, source_hidden)
    spelled, folds = spelled_as(writer, _named_alike(source)), folds_names(writer)
    destination = {spelled(label): item for label, item in read_labelled(writer, hidden).items()}
    grants = grants_by_account(reader)
    digests, before = digests_of(source, grants), (log or {}).get(DEFINITIONS)
    changed = {
        label
        for label, digest in digests.items()
        if isinstance(before, Mapping) and before.get(label) != digest
    }
    seen = source.keys() - {loss.item for loss in hidden.losses} | changed
    is_one_version = reader.version == writer.version
    missing, otherwise = [], []
    for label, definition in source.items():
        if label not in seen or _is_of(definition, skipped):
            continue
        if label not in destination:
            missing.append(label)
        elif (label in changed or is_one_version) and _differs(
            definition,
            destination[label],
            exactly=label in changed,
            is_one_version=is_one_version,
            folds=folds,
        ):
            otherwise.append(f"{label} as it is defined now")
    accounts = {label.removeprefix(PRIVILEGES) for label in changed if label.startswith(PRIVILEGES)}
    accounts |= _dropped(before, grants)
    own_account, by_name = _own_account(reader), _by_name(reader, grants)
    names = {own_account if account == OWN_ACCOUNT else account for account in accounts}
    otherwise += [
        f"{PRIVILEGES}{account} as they are now"
        if account in by_name
        else f"DROP {'ROLE' if is_role(account) else 'USER'} {account}"
        for account in _other_grants(reader, writer, by_name, names, by_name if is_all_access else ())
    ]
    hidden_at_source = {loss.item for loss in source_hidden.losses}
    surplus = [label for label in destination if label not in source and label not in hidden_at_source]
    return DefinitionGaps(
        [*missing, *otherwise], surplus, note_other_settings(*map(server_settings, (reader, writer)))
    )


def _own_account(connection: Connection) -> str:
    return "{}@{}".format(*map(quote_literal, str(connection.value("SELECT CURRENT_USER()")).rsplit("@", 1)))


def _by_name(connection: Connection, grants: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return grants by account, with the name of the connection's own where that sees no others."""
    own_account = _own_account(connection)
    return {own_account if account == OWN_ACCOUNT else account: grants[account] for account in grants}


def _dropped(before: Any, grants: Mapping[str, list[str]]) -> set[str]:
    """Return the accounts of the base that are no more; none where this account may not see others."""
    if not isinstance(before, Mapping) or OWN_ACCOUNT in grants:
        return set()
    then = {label.removeprefix(PRIVILEGES) for label in before if label.startswith(PRIVILEGES)}
    return then - grants.keys() - {OWN_ACCOUNT}


def _is_of(definition: Definition, tables: Collection[str]) -> bool:
    """Tell whether a definition is that of a table, or of a trigger of it."""
    return definition["kind"] in _OF_TABLES and definition.get("table", definition["name"]) in tables


def _named_alike(definitions: Mapping[str, Definition]) -> list[str]:
    """Return the labels of what some servers call by one name whatever its case."""
    return [label for label, item in definitions.items() if item["kind"] in {"table", "view", "sequence"}]


def _differs(
    source: Definition, destination: Definition, *, exactly: bool, is_one_version: bool, folds: bool
) -> bool:
    """Tell whether two definitions differ; ``exactly``: also in whose name they act, and under which mode. ``folds``:
    one of them has names in lower case.
    """
    sides = source, destination
    texts = [constant_text(definition) for definition in sides]
    texts = [_NAME.sub(lambda name: name[0].lower(), text) for text in texts] if folds else texts
    if not exactly:
        texts = [_SPACE.sub(" ", without_definer(text)) for text in texts]
    if not is_one_version:
        texts = [_WIDTH.sub(r"\1", _OLD_CHARSET.sub("utf8", text)) for text in texts]
    modes = (
        [definition.get("sql_mode", "") for definition in sides] if exactly and is_one_version else [""] * 2
    )
    return texts[0] != texts[1] or modes[0] != modes[1]


def _other_grants(
    reader: Connection,
    writer: Connection,
    grants: Mapping[str, list[str]],
    accounts: Collection[str],
    others: Collection[str],
) -> list[str]:
    """Return those of some accounts that may not do the same at both sides; of ``others``, not the same with the
    database. What the account of a move itself may do elsewhere belongs to the move.
    """
    if not accounts and not others:
        return []
    own_account, other_grants = _own_account(reader), grants_by_account(writer)
    here, there = (
        _rights(by_account, connection.address.database)
        for connection, by_account in ((reader, grants), (writer, other_grants))
    )
    if OWN_ACCOUNT in other_grants:  # the destination shows no other account: theirs stands for ours
        there = {own_account: there.get(OWN_ACCOUNT, _NOTHING)}
    different = []
    for account in sorted({*accounts, *others}):
        source, destination = here.get(account, _NOTHING), there.get(account, _NOTHING)
        is_whole = account in accounts and account != own_account
        if source[0] != destination[0] or (is_whole and source[1] != destination[1]):
            different.append(account)
    return different


def _rights(
    grants: Mapping[str, list[str]], database: str
) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Return what each account that can use a database may do with it, and elsewhere."""
    reaching = {*Grants.parse("\n".join(chain(*grants.values())), database).accounts}
    rights = {}
    for account, statements in grants.items():
        own = Grants.parse("\n".join(statements), database, _HERE)
        if not reaching.isdisjoint(
            {*(grant.account for grant in own.own), *(grant.account for grant in own.server_wide)}
        ):
            rights[account] = (
                frozenset(grant.statement(_HERE) for grant in own.own),
                frozenset(grant.statement for grant in own.server_wide if not grant.empty),
            )
    return rights
