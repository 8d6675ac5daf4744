"""What a database defines, and digests of that: by them one sees later what was defined otherwise since.

Servers of other versions print the same thing otherwise. So whether a definition has changed is asked of the server
alone that has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from exporters.mysql.catalog import read_tables
from exporters.mysql.connection import Connection
from exporters.mysql.definitions.account_grants import grants_by_account
from exporters.mysql.definitions.show_create import Definition, Missing, label_of, read_definitions

_VARYING = re.compile(r" AUTO_INCREMENT=\d+| (?:ENABLE|DISABLE(?: ON (?:SLAVE|REPLICA))?)(?= )")
"""What is carried over by itself, or differs as long as changes are applied."""
_ENDS = "; \t\r\n"
"""MySQL keeps what ends a statement among several as a part of a program."""
_DIGEST_BYTES = 8
DEFINITIONS = "definitions"
"""Under this name the log of a ``ChangeBase`` has the digests as they were then."""
PRIVILEGES = "privileges of "
_DATABASE = "charset, collation and comment of the database"


def read_labelled(connection: Connection, missing: Missing) -> dict[str, Definition]:
    """Return all definitions by kind and name; ``missing`` gets those that are hidden. Raises the driver's errors."""
    return labelled(read_definitions(connection, read_tables(connection), missing))


def labelled(definitions: Iterable[Definition]) -> dict[str, Definition]:
    """Return definitions by kind and name."""
    return {
        _DATABASE if definition["kind"] == "database" else label_of(definition): definition
        for definition in definitions
    }


def constant_text(definition: Definition) -> str:
    """Return what of a definition changes only where somebody defines it otherwise."""
    if definition["kind"] == "database":
        return " ".join(str(definition.get(word, "")) for word in ("charset", "collation", "comment"))
    return _VARYING.sub("", definition["sql"]).rstrip(_ENDS)


def digests_of(definitions: Mapping[str, Definition], grants: Mapping[str, list[str]]) -> dict[str, str]:
    """Return a digest of each definition, and of what each account may do, by their labels."""
    texts = {
        label: f"{constant_text(definition)}\n{definition.get('sql_mode', '')}"
        for label, definition in definitions.items()
    }
    texts |= {PRIVILEGES + account: "\n".join(statements) for account, statements in grants.items()}
    return {
        label: hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_DIGEST_BYTES).hexdigest()
        for label, text in texts.items()
    }


def read_digests(connection: Connection) -> dict[str, str]:
    """Return the digests of a database as it is now. Raises the driver's errors."""
    return digests_of(read_labelled(connection, Missing()), grants_by_account(connection))
