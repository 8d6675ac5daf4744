"""Passwords of other servers, which stand in the definitions of the tables that lie there. Pure.

FEDERATED has them in the URL of ``CONNECTION``, CONNECT also in ``OPTION_LIST`` or a driver's connection string. SPIDER
has them in a list of ``name "value"``, which is the comment of the table or of a partition, or the connection.
"""

from __future__ import annotations

import re

NO_SECRETS = "a bundle holds no secrets; set it in the connection"
_TEXT = r"'(?:[^'\\]|\\.|'')*'"
_URL = re.compile(r"(\bCONNECTION\s*=\s*'\w+://[^:@/']*):(?:[^@'\\]|\\.|'')*(@)", re.IGNORECASE)
_OPTIONS = re.compile(rf"\b(?:CONNECTION|COMMENT|OPTION_LIST|REMOTE_PASSWORD)`?\s*=\s*{_TEXT}", re.IGNORECASE)
_SPIDER = re.compile(
    r"(\b(?:default_)?passwords?\s+)(\"|'')(?:\\\\.|(?!\2).)*\2",  # a backslash is printed as two
    re.IGNORECASE | re.DOTALL,
)
_PAIRS = re.compile(r"(\b(?:password|pwd|passwd)\s*=\s*)[^,;&'\"\s\\]+", re.IGNORECASE)
_WHOLE = re.compile(r"(REMOTE_PASSWORD`?\s*=\s*)'.*'", re.IGNORECASE | re.DOTALL)
_HAVE_THEM = frozenset({"SPIDER", "CONNECT", "FEDERATED"})
_ENGINE = re.compile(r"^\) ENGINE=(\w+)", re.MULTILINE)


def without_secrets(sql: str) -> tuple[str, bool]:
    """Return a table's definition without the passwords to other servers, and whether there were any."""
    cleaned = _URL.sub(r"\1\2", sql)
    engine = _ENGINE.search(cleaned)
    if engine is not None and engine[1].upper() in _HAVE_THEM:
        cleaned = _OPTIONS.sub(lambda match: _without(match[0]), cleaned)
    return cleaned, cleaned != sql


def _without(option: str) -> str:
    option = _WHOLE.sub(r"\1''", option)
    return _PAIRS.sub(r"\1", _SPIDER.sub(r"\1\2\2", option))
