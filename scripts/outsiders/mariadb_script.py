"""Scripts of MariaDB's test suite, rewritten so that what they drop stays."""

from __future__ import annotations

import re
from itertools import count

_DROP = re.compile(
    r"(?P<before>^|;)(?P<space>[ \t]*)drop[ \t]+(?P<kind>tables?|view|sequence|procedure|function|trigger|event"
    r"|database|schema|package(?:[ \t]+body)?)[ \t]+(?P<names>[^;|]*?)(?P<end>;|\|)",
    re.IGNORECASE | re.MULTILINE,
)
_RENAMED = frozenset({"table", "tables", "sequence"})
_VIEW = re.compile(r"create\b[^;]*\bview\b", re.IGNORECASE)
_NAME = re.compile(r"(?:(?P<database>\w+)\.)?(?P<name>\w+)")
_OF_NAMES = re.compile(r"^if exists\s+|\s+(?:cascade|restrict|wait \d+|nowait)$", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*(?:#|--\s*echo).*$", re.MULTILINE)
_NEEDS_MORE = re.compile(
    r"restart_mysqld|restart_parameters|shutdown_(?:server|mysqld)|^\s*(?:--\s*)?shutdown|(?:kill|start)_mysqld"
    r"|^\s*(?:--\s*)?(?:perl|exec)\b|have_(?:debug|rpl|wsrep|binlog)|big_test|master-slave|wait_until_|expect_crash"
    r"|install (?:plugin|soname)|have_\w*(?:archive|connect|spider|rocksdb|oqgraph|federated)|debug_(?:dbug|sync)"
    r"|global (?:read_only|max_connections|max_user_connections|innodb_force|innodb_read_only)",
    re.IGNORECASE | re.MULTILINE,
)
_TEST = re.compile(r"(?<![\w$/])test(?=\.[\w`*])|(?<=\buse )test\b|(?<=['\"`])test(?=['\"`])", re.IGNORECASE)


def runs_alone(script: str) -> bool:
    """True where a script needs no more than a server: no restart of it, no debug build, no programs."""
    return not _NEEDS_MORE.search(_COMMENT.sub("", script))


def without_drops(script: str) -> str:
    """Return a script in which what it drops stays. Tables and sequences get other names, so that the script can make
    them anew, but not in a script with views, which would lose them.
    """
    numbers = count(1)
    renamed = frozenset() if _VIEW.search(script) else _RENAMED

    def kept(match: re.Match[str]) -> str:
        names = _OF_NAMES.sub("", match["names"].strip()).split(",")
        moves = []
        for name in names if match["kind"].lower() in renamed else ():
            parts = _NAME.fullmatch(name.strip().replace("`", ""))
            if parts:
                database = f"`{parts['database']}`." if parts["database"] else ""
                new = f"{database}`{parts['name'][:50]}__{next(numbers)}`"
                moves.append(f"rename table if exists {database}`{parts['name']}` to {new}")
        statements = moves or ["do 0"]
        return match["before"] + "".join(f"\n{statement}{match['end']}" for statement in statements)

    return _DROP.sub(kept, script)


def in_database(script: str, database: str) -> str:
    """Return a script that uses another database where it says ``test``."""
    return _TEST.sub(database, script)
