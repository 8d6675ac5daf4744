"""BagIt's own files (RFC 8493) as text, written and read line by line in bounded memory.

Reading is strict, because a bundle may come from anywhere. A name that could leave the bundle, a line that is no line
of ours, and a name given twice are ``DamageError``s that say which line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from migrate.bundle import canonical_json, layout
from migrate.bundle.commit_records import FileRecord
from migrate.errors import DamageError, UsageError
from migrate.storage.api import Store

DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
CHUNK_BYTES = 4 * 2**20
MAX_LINE_BYTES = 8192
"""A payload name has at most 1024 bytes (S3's limit for keys); hashes and punctuation come on top."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^\r\n]+)")
_OXUM = re.compile(r"(\d{1,20})\.(\d{1,20})")


class ManifestEntry(Struct, frozen=True):
    """One line of a manifest; ``size_bytes`` from ``meta/files.jsonl`` where that was read along, else
    None.
    """

    key: str
    sha256: str
    size_bytes: int | None = None


def manifest_line(key: str, sha256: str) -> bytes:
    """Return one line as ``sha256sum`` prints and checks it."""
    return f"{sha256}  {key}\n".encode("ascii")


def parse_manifest(
    lines: Iterable[bytes], name: str, accept: Callable[[str], bool]
) -> Iterator[ManifestEntry]:
    """Yield the entries of a manifest, which must be ordered by key without repetition.

    ``accept`` says which names may stand in it. Raises ``DamageError`` with the manifest's name and the
    line number.
    """
    last = ""
    for number, line in enumerate(lines, 1):
        try:
            match = _LINE.fullmatch(line.decode("utf-8").rstrip("\n"))
        except UnicodeDecodeError:
            match = None
        if match is None:
            raise DamageError(
                f"{name} line {number}", expected="a SHA-256, two spaces, a name", found=repr(line[:80])
            )
        digest, key = match.groups()
        if not accept(key):
            raise DamageError(
                f"{name} line {number}", expected="a name of a bundle's file", found=repr(key[:200])
            )
        if key <= last:
            problem = "the same name twice" if key == last else f"{key!r} after {last!r}"
            raise DamageError(f"{name} line {number}", expected="names in order, each once", found=problem)
        last = key
        yield ManifestEntry(key, digest)


def files_line(file: FileRecord) -> bytes:
    """Return one line of ``meta/files.jsonl``."""
    return canonical_json.encode(file.as_json()) + b"\n"


def parse_files(lines: Iterable[bytes]) -> Iterator[FileRecord]:
    """Yield the lines of ``meta/files.jsonl``. Raises ``DamageError`` with the line number."""
    for number, line in enumerate(lines, 1):
        line_name = f"{layout.FILES} line {number}"
        value = canonical_json.decode(line, line_name)
        try:
            yield FileRecord.of_json(value)
        except (KeyError, TypeError, ValueError) as exc:
            raise DamageError(
                line_name, expected="a file's key, size and checksums", found=repr(line[:80])
            ) from exc


def check_declaration(data: bytes) -> None:
    """Check ``bagit.txt``. Raises ``UsageError`` for a BagIt version we do not know, ``DamageError`` for
    anything else.
    """
    if data == DECLARATION:
        return
    match = re.match(rb"BagIt-Version: (\d+)\.(\d+)\n", data)
    if match and (int(match[1]), int(match[2])) > (1, 0):
        raise UsageError(
            f"{layout.BAGIT} declares BagIt {match[1].decode()}.{match[2].decode()}; this moveout reads 1.0",
            next_step="use a newer moveout",
        )
    raise DamageError(layout.BAGIT, expected="a BagIt 1.0 declaration in UTF-8", found=repr(data[:80]))


def bag_info(labels: Mapping[str, str]) -> bytes:
    """Return ``bag-info.txt``: one ``Label: value`` a line, in the given order. Values are single lines."""
    return "".join(f"{label}: {' '.join(value.split())}\n" for label, value in labels.items()).encode(
        "utf-8", "backslashreplace"
    )


def parse_bag_info(data: bytes) -> dict[str, str]:
    """Parse ``bag-info.txt`` as ``bag_info`` writes it. Raises ``DamageError``."""
    labels: dict[str, str] = {}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DamageError(layout.BAG_INFO, expected="UTF-8", found=f"byte {exc.start} is not") from exc
    for number, line in enumerate(text.splitlines(), 1):
        label, separator, value = line.partition(": ")
        if not separator or label in labels:
            raise DamageError(
                f"{layout.BAG_INFO} line {number}", expected="a new label and a value", found=repr(line[:80])
            )
        labels[label] = value
    return labels


def parse_oxum(value: str) -> tuple[int, int]:
    """Parse a Payload-Oxum into (bytes, files). Raises ``DamageError``."""
    match = _OXUM.fullmatch(value)
    if match is None:
        raise DamageError(layout.BAG_INFO, expected="a Payload-Oxum BYTES.FILES", found=repr(value[:80]))
    return int(match[1]), int(match[2])


def chunks(store: Store, key: str) -> Iterator[bytes]:
    """Yield a file in pieces. Raises ``GoneError``."""
    start = 0
    while piece := store.read(key, start, CHUNK_BYTES):
        yield piece
        start += len(piece)
        if len(piece) < CHUNK_BYTES:
            return


def lines(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Cut pieces into lines, newline included. Raises ``DamageError`` for a line that is too long or does
    not end.
    """
    rest = b""
    for piece in pieces:
        *complete_lines, rest = (rest + piece).split(b"\n")
        for line in complete_lines:
            if len(line) > MAX_LINE_BYTES:
                raise _too_long(name)
            yield line + b"\n"
        if len(rest) > MAX_LINE_BYTES:
            raise _too_long(name)
    if rest:
        raise DamageError(name, expected="a newline at the end", found=repr(rest[-80:]))


def _too_long(name: str) -> DamageError:
    return DamageError(name, expected=f"lines of at most {MAX_LINE_BYTES} bytes", found="a longer one")
