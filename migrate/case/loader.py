"""The case file: one move, described in TOML.

``load`` turns ``moveout.toml`` into values and refuses what it does not know, naming the location. Relative
paths are relative to the file. Secrets stand in it only as references (``env:VAR``, ``file:PATH``,
``command:…``), resolved when they are needed.
"""

from __future__ import annotations

import difflib
import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from exporters.discovery import NotTaken
from exporters.limits import Limits
from exporters.selection import Selection
from migrate.case import selection
from migrate.case.deadline import names_no_zone, parse_deadline
from migrate.case.limits import gently, parse_limits, parse_seconds
from migrate.case.model import Case, Custody, Endpoint, LeftOut, Notify, Rank, ServerMove
from migrate.case.secrets import CUSTOMER_KEY, Secret, is_reference, redact, remember_url_secrets
from migrate.case.server_url import address_problem, as_url, check_url, is_of_server, is_pattern, source_url
from migrate.engines import registry
from migrate.errors import UsageError, in_words
from migrate.quantities import parse_limit, parse_size

_log = logging.getLogger(__name__)

LOCATION_SECRETS = ("password", "access_key_id", "secret_access_key", "session_token")
SELECTION_FIELDS = (
    "include",
    "exclude",
    "min_size",
    "max_size",
    "newer_than",
    "older_than",
    "tags",
    "current_only",
)
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "case": ("name", "deadline", "reserve", "notify", "follow", "retain"),
    "server": ("url",),
    "source": (
        "name",
        "url",
        "priority",
        "value",
        "may_be_empty",
        "follow",
        "retain",
        "inventory",
        CUSTOMER_KEY,
        *SELECTION_FIELDS,
    ),
    "bundle": ("location", *LOCATION_SECRETS),
    "transfer": ("location", *LOCATION_SECRETS),
    "destination": ("source", "url", "from", "to"),
    "limits": (
        "workers",
        "bwlimit",
        "max_connections",
        "statement_timeout",
        "lock_timeout",
        "archived",
        "gentle",
    ),
    "custody": ("key", "passphrase", "timestamp", "signers", "release_keys", "release_quorum"),
    "left_out": ("url", "reason"),
    "not_taken": ("kind", "name", "size_bytes", "region", "advice"),
}
"""The keys of each section. ``_WITH_SECRETS`` hold the secrets of the engines besides."""
_COMPARE = "correct it there; moveout init writes a sample to compare with"
_LONGEST = 8192
"""Characters of a text: paths and URLs have fewer."""
_NO_URL = re.compile(r"[\x00-\x20\x7f]")
"""Characters that no URL has: a library would repeat the whole one."""
_WITH_SECRETS = ("server", "source", "destination")
_LISTS = (*_WITH_SECRETS, "left_out", "not_taken")


def load(path: Path, *, may_be_empty: bool = False) -> Case:
    """Read a case file. Raises ``UsageError`` with file and place of what is wrong, also where nothing is in it, unless
    it ``may_be_empty``.
    """
    import tomllib  # noqa: PLC0415  2 ms of a start, and many commands have no case file

    _log.info("case file %s", path)
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(
            f"there is no case file {path}",
            next_step=f"check its name; moveout discover URL … --to {path} writes one, and so does moveout init",
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a directory, and no case file",
            next_step=f"name the file in it: -c {path}/moveout.toml",
        ) from None
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be read: {exc.strerror}", next_step="check its rights, or name another case file"
        ) from exc
    except UnicodeDecodeError as exc:
        raise UsageError(
            f"{path} is not UTF-8 text (byte {exc.start})",
            next_step="compare with what `moveout init` writes",
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(
            f"{path} is not TOML: {exc}{_key_at(text, str(exc))}",
            next_step=_toml_step(str(exc)),
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(
            f"{path} cannot be read as TOML: {in_words(exc)}",
            next_step="compare with what `moveout init` writes",
        ) from exc
    if not document and not may_be_empty:
        raise UsageError(
            f"the case file {path} is empty, or has only comments: it names no source and no location",
            next_step="moveout init writes one; name the bundle itself where there is no case file",
        )
    return _Reader(path).case(document)


def _toml_step(complaint: str) -> str:
    """Return what to do about a complaint of TOML's parser."""
    twice = re.match(r"Cannot declare \('(\w+)',\) twice", complaint)
    if twice and twice[1] in _LISTS:
        return f"write two brackets where it may stand several times: [[{twice[1]}]]"
    return "texts stand in quotes, and times with a space in them; compare with what `moveout init` writes"


def _key_at(text: str, complaint: str) -> str:
    """Return the key of the line that a complaint of TOML's parser names; not its value, which may be a secret."""
    number = re.search(r"at line (\d+)", complaint)
    line = text.splitlines()[int(number[1]) - 1 :][:1] if number else []
    key = re.match(r"\s*([\w-]+)\s*=", line[0]) if line else None
    return f", at {key[1]!r}" if key else ""


class _Reader:
    """Turns the parsed document into a ``Case``; its complaints name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def case(self, document: Mapping[str, Any]) -> Case:
        for section, content in document.items():
            self._check_section(section, content)
        head = document.get("case", {})
        limits = document.get("limits", {})
        sources = self._endpoints(document, "source", key="name")
        destinations = self._endpoints(document, "destination", key="source")
        has_patterns = any(is_pattern(source.url) for source in sources.values())
        for name in destinations:
            if sources and name not in sources and not has_patterns:
                self._fail(
                    f"[[destination]] names the source {name!r}, which is not among {', '.join(sources)}"
                )
            self._check_kind(name, sources.get(name), destinations[name])
        moves, left_out, servers = self._moves(document), self._left_out(document), self._servers(document)
        known_urls = [entry.url for entry in [*sources.values(), *servers]] + [
            entry.url for entry in left_out
        ]
        for move in moves:
            if sources and not any(is_of_server(move.old, url) for url in known_urls):
                self._fail(f"[[destination]] from {redact(move.old)} is the server of no [[source]]")
        return Case(
            name=self._text(head, "name", "[case]", default=self._path.stem),
            deadline=self._deadline(head.get("deadline")),
            notify=self._notify(head.get("notify")),
            sources=sources,
            bundle=self._location(document, "bundle"),
            transfer_to=self._location(document, "transfer"),
            destinations=destinations,
            workers=self._workers(limits.get("workers")),
            bwlimit=self._bwlimit(limits),
            limits=self._limits(limits),
            custody=self._custody(document.get("custody", {})),
            reserve_seconds=self._reserve(head),
            moves=moves,
            left_out=left_out,
            not_taken=self._not_taken(document),
            servers=servers,
            deadline_is_local=names_no_zone(head.get("deadline")),
            file=str(self._path),
        )

    def _bwlimit(self, limits: Mapping[str, Any]) -> str | None:
        if "bwlimit" not in limits:
            return None
        text = str(limits["bwlimit"])
        with self._naming("[limits] bwlimit"):
            parse_limit(text)
        return text

    def _fail(self, message: str, next_step: str = _COMPARE) -> None:
        raise UsageError(f"{self._path}: {message}", next_step=next_step)

    @contextmanager
    def _naming(self, place: str) -> Iterator[None]:
        """Name the file and the place in it where a value makes no sense."""
        try:
            yield
        except UsageError as exc:
            if exc.explanation.startswith(f"{self._path}: "):
                raise
            raise UsageError(f"{self._path}: {place}: {exc}", next_step=exc.next_step or _COMPARE) from exc

    def _check_section(self, section: str, content: Any) -> None:
        if section not in _SECTIONS:
            if isinstance(content, dict | list):
                self._fail(f"unknown section [{section}]{_suggest(section, _SECTIONS)}")
            self._fail(
                f"{section!r} stands in no section{_place_of(section) or _suggest(section, _SECTIONS)}"
            )
        expected = "a list of tables, written [[%s]]" if section in _LISTS else "a table, written [%s]"
        tables = content if section in _LISTS else [content]
        known = _SECTIONS[section] + (registry.secret_names() if section in _WITH_SECRETS else ())
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._fail(f"{section!r} must be {expected % section}")
        for position, table in enumerate(tables, 1):
            section_name = f"[[{section}]] number {position}" if section in _LISTS else f"[{section}]"
            for key in table:
                if key not in known:
                    self._fail(f"{section_name} has no {key!r}{_place_of(key) or _suggest(key, known)}")
                for text in _texts_in(table[key]):
                    if "\0" in text:
                        self._fail(f"{section_name}: {key} has a zero byte in it")
                    if len(text) > _LONGEST:
                        self._fail(
                            f"{section_name}: {key} has {len(text):,} characters; {_LONGEST:,} are the most"
                        )

    def _text(
        self, table: Mapping[str, Any], key: str, section_name: str, *, default: str | None = None
    ) -> str:
        value = table.get(key, default)
        if not isinstance(value, str) or not value.strip():
            self._fail(f'{section_name} needs {key} = "…"')
        return str(value)

    def _endpoints(self, document: Mapping[str, Any], section: str, *, key: str) -> dict[str, Endpoint]:
        endpoints: dict[str, Endpoint] = {}
        head = document.get("case", {}) if section == "source" else {}
        follows, retain_bytes = self._flag(head, "follow", "[case]"), self._retain(head, "[case]")
        for position, table in enumerate(document.get(section, []), start=1):
            section_name = f"[[{section}]] number {position}"
            if "from" in table or "to" in table:
                continue
            is_unnamed = section == "source" and is_pattern(str(table.get("url", "")))
            name = self._text(table, key, section_name, default=table["url"] if is_unnamed else None)
            if name in endpoints:
                restore = f"moveout restore -c {shlex.quote(str(self._path))} {shlex.quote(f'{name}=URL')}"
                other = f"keep one of them; what brings it up at the other, too: {restore}"
                step = other if section == "destination" else _COMPARE
                self._fail(f"{section_name}: {name!r} stands there twice", step)
            with self._naming(section_name):
                url = source_url(self._resolve(self._text(table, "url", f"{section_name} ({name})")))
                report = (
                    self._resolve(self._text(table, "inventory", section_name))
                    if "inventory" in table
                    else None
                )
                endpoints[name] = Endpoint(
                    url,
                    self._secrets(table, section_name),
                    self._selection(table, section_name),
                    report,
                    may_be_empty=self._flag(table, "may_be_empty", section_name),
                    follow=self._flag(table, "follow", section_name, default=follows),
                    retain_bytes=self._retain(table, section_name, default=retain_bytes),
                    rank=self._rank(table, section_name),
                )
        return endpoints

    def _check_kind(self, name: str, source: Endpoint | None, destination: Endpoint) -> None:
        if source is None or registry.find(source.url) in (None, registry.find(destination.url)):
            return
        self._fail(
            f"[[destination]] of {name!r}: {destination.shown} is of another kind than {source.shown},"
            " and moveout converts nothing"
        )

    def _flag(self, table: Mapping[str, Any], key: str, section_name: str, *, default: bool = False) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            self._fail(f"{section_name}: {key} must be true or false")
        return bool(value)

    def _retain(
        self, table: Mapping[str, Any], section_name: str, *, default: int | None = None
    ) -> int | None:
        if "retain" not in table:
            return default
        with self._naming(f"{section_name}: retain"):
            return parse_size(str(table["retain"]))

    def _moves(self, document: Mapping[str, Any]) -> list[ServerMove]:
        moves = []
        for position, table in enumerate(document.get("destination", []), start=1):
            if "from" not in table and "to" not in table:
                continue
            section_name = f"[[destination]] number {position}"
            if "source" in table or "url" in table:
                self._fail(f"{section_name} takes either source and url, or from and to")
            with self._naming(section_name):
                old = self._resolve_server(self._text(table, "from", section_name))
                check_url(old)
            new = table.get("to", "")
            if not isinstance(new, str):
                self._fail(f'{section_name} needs to = "…"')
            secrets = self._secrets(table, section_name)
            with self._naming(section_name):
                address = self._resolve_server(new) if new.strip() else ""
                if address and (problem := address_problem(address, old)):
                    self._fail(f"{section_name}: to = {redact(new)!r} for {redact(old)}: {problem}")
                moves.append(ServerMove(old, Endpoint(address, secrets) if address else None))
        return moves

    def _left_out(self, document: Mapping[str, Any]) -> list[LeftOut]:
        entries = []
        for position, table in enumerate(document.get("left_out", []), start=1):
            section_name = f"[[left_out]] number {position}"
            with self._naming(section_name):
                url = self._resolve_server(self._text(table, "url", section_name))
            entries.append(LeftOut(url, self._text(table, "reason", section_name)))
        return entries

    def _not_taken(self, document: Mapping[str, Any]) -> list[NotTaken]:
        entries = []
        for position, table in enumerate(document.get("not_taken", []), start=1):
            section_name = f"[[not_taken]] number {position}"
            size_bytes = table.get("size_bytes")
            if size_bytes is not None and (not isinstance(size_bytes, int) or isinstance(size_bytes, bool)):
                self._fail(f"{section_name}: size_bytes must be a whole number")
            kind, name = (self._text(table, key, section_name) for key in ("kind", "name"))
            region, advice = (str(table.get(key, "")) for key in ("region", "advice"))
            entries.append(NotTaken(kind, name, size_bytes, region, advice))
        return entries

    def _servers(self, document: Mapping[str, Any]) -> list[Endpoint]:
        servers = []
        for position, table in enumerate(document.get("server", []), start=1):
            section_name = f"[[server]] number {position}"
            with self._naming(section_name):
                url = self._resolve_server(self._text(table, "url", section_name))
                servers.append(Endpoint(url, self._secrets(table, section_name)))
        return servers

    def _resolve_server(self, url: str) -> str:
        """Return the URL of a server; a directory of SQLite files may stand there as its path."""
        return as_url(self._resolve(url))

    def _rank(self, table: Mapping[str, Any], section_name: str) -> Rank:
        priority, value = table.get("priority"), table.get("value")
        if priority is not None and (not isinstance(priority, int) or isinstance(priority, bool)):
            self._fail(f"{section_name}: priority must be a whole number; 1 goes before 2")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if value is not None and not (is_number and value >= 0):
            self._fail(f"{section_name}: value must be a number, at least 0; it is 1 unless given")
        return Rank(priority, None if value is None else float(value))

    def _reserve(self, table: Mapping[str, Any]) -> float | None:
        if "reserve" not in table:
            return None
        if "deadline" not in table:
            self._fail("[case] reserve counts back from a deadline, and none is given")
        with self._naming("[case]"):
            return parse_seconds("reserve", table["reserve"])

    def _selection(self, table: Mapping[str, Any], section_name: str) -> Selection:
        selected = {name: table[name] for name in SELECTION_FIELDS if name in table}
        with self._naming(section_name):
            return selection.from_words(selected)

    def _location(self, document: Mapping[str, Any], section: str) -> Endpoint | None:
        if section not in document:
            return None
        table = document[section]
        with self._naming(f"[{section}]"):
            location = self._resolve(self._text(table, "location", f"[{section}]"))
            return Endpoint(location, self._secrets(table, f"[{section}]"))

    def _resolve(self, url: str) -> str:
        if "://" in url:
            return url
        return str((self._path.parent / Path(url).expanduser()).resolve())

    def _custody(self, table: Mapping[str, Any]) -> Custody:
        names = table.get("release_keys", [])
        quorum = table.get("release_quorum", 1 if names else 0)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._fail(
                "[custody] release_keys must be a list of fingerprints (moveout keys show prints them)"
            )
        if (
            not isinstance(quorum, int)
            or isinstance(quorum, bool)
            or not bool(names) <= quorum <= len(set(names))
        ):
            self._fail("[custody] release_quorum must be a number from 1 to how many release_keys there are")
        return Custody(
            key=self._file(table, "key"),
            passphrase=self._secrets(table, "[custody]", ("passphrase",)).get("passphrase"),
            timestamp=self._text(table, "timestamp", "[custody]") if "timestamp" in table else None,
            signers=self._file(table, "signers"),
            release_keys=tuple(dict.fromkeys(names)),
            release_quorum=quorum,
        )

    def _file(self, table: Mapping[str, Any], key: str) -> Path | None:
        return Path(self._resolve(self._text(table, key, "[custody]"))) if key in table else None

    def _secrets(
        self, table: Mapping[str, Any], section_name: str, names: Iterable[str] | None = None
    ) -> dict[str, Secret]:
        """Return a table's secrets; without ``names`` those of locations and engines."""
        secrets = {}
        for name in names or {*LOCATION_SECRETS, *registry.secret_names(), CUSTOMER_KEY}:
            if name not in table:
                continue
            reference = table[name]
            if not is_reference(reference):
                self._fail(
                    f"{section_name}: {name} takes no secret itself; write env:VAR, file:PATH or command:PROGRAM …"
                )
            secrets[name] = Secret(reference, self._path.parent)
        return secrets

    def _deadline(self, value: Any) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value if value.tzinfo else value.astimezone()
        with self._naming("[case]"):
            return parse_deadline(str(value), relative=False)

    def _notify(self, value: Any) -> Notify | None:
        if value is None:
            return None
        if not isinstance(value, dict) or not value or not all(isinstance(v, str) for v in value.values()):
            self._fail('[case] notify must be { command = "…" }, { url = "…" }, or both')
        if unknown := value.keys() - {"command", "url"}:
            self._fail(f"[case] notify has no {min(unknown)!r}; it may hold command, url")
        command, url = value.get("command", ""), value.get("url", "")
        remember_url_secrets(url)
        if url and not url.lower().startswith(("http://", "https://")):
            self._fail(f"[case] notify takes no url {redact(url)!r}: it must begin with http:// or https://")
        if url and not _names_host(url):
            self._fail(
                "[case] the url of notify names no host, or has spaces in it; in a user name and password, / : @ are"
                " written %2F %3A %40"
            )
        try:
            shlex.split(command)
        except ValueError as exc:
            self._fail(f"[case] notify takes no command {command!r}: {exc}")
        return Notify(command, url)

    def _limits(self, table: Mapping[str, Any]) -> Limits:
        most = table.get("max_connections")
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 2):
            self._fail("[limits] max_connections must be a whole number, at least 2")
        gentle = table.get("gentle", False)
        if not isinstance(gentle, bool):
            self._fail("[limits] gentle must be true or false")
        with self._naming("[limits]"):
            limits = parse_limits(
                most, table.get("statement_timeout"), table.get("lock_timeout"), table.get("archived")
            )
            return gently(limits) if gentle else limits

    def _workers(self, value: Any) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 256:
            self._fail("[limits] workers must be a whole number from 1 to 256")
        return int(value)


def _names_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and _NO_URL.search(url) is None
    except ValueError:  # what stands for the port is no number: perhaps a part of a password
        return False


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts_in(part)


def _place_of(key: str) -> str:
    """Return which section a key belongs in, as the end of a sentence; "" where none has it, or several have."""
    holders = [section for section, keys in _SECTIONS.items() if key in keys]
    if len(holders) != 1:
        return ""
    return f"; it belongs in {'[[%s]]' if holders[0] in _LISTS else '[%s]'}" % holders[0]


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it may hold {', '.join(known)}"
