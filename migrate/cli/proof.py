"""``moveout prove`` and ``check-proof``: that an object or a table's part was in the set that was preserved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.cli import app
from migrate.cli.common.options import CaseFile, known_location
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signing_keys import Signers, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import plain
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.custody.tree import bundle_tree, checkpoint, inclusion_proof, leaf_json
from migrate.custody.tree.checkpoint import Checkpoint
from migrate.custody.tree.row_location import part_with
from migrate.errors import OK, DamageError, GoneError, UsageError
from migrate.storage.api import Store

Item = dict[str, object]
SUFFIX = ".tlog-proof"


@dataclass(frozen=True, slots=True)
class Proved:
    """Files that were written, each the proof of one item."""

    location: str
    written: Sequence[tuple[str, Item]]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return files and items."""
        return {
            "location": self.location,
            "proofs": [{"file": file, "item": item} for file, item in self.written],
        }

    def draw(self, console: Console) -> None:
        """Say which file proves what."""
        for file, item in self.written:
            console.print(Text(f"{file}  proves {_said(item)}"))
        console.print(
            "→ whoever has the signer's public key checks it: moveout check-proof FILE --signers allowed"
        )


@verb(app, "prove", bwlimit=True)
def prove_command(
    session: Session,
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="Where the signed bundle lies.")],
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys of objects.")] = None,
    *,
    case: CaseFile = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this source.")] = None,
    table: Annotated[str | None, typer.Option(metavar="[SCHEMA.]TABLE", help="The parts of a table.")] = None,
    row: Annotated[
        str | None, typer.Option(metavar="COLUMN=VALUE", help="With --table: the part that holds this row.")
    ] = None,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the proofs go.")] = Path(),
) -> Proved:
    """Write a proof that an object, or a row, is in the bundle.

    A small file; of a row it proves the part of the table that has it. The file shows this one item, and can be checked
    without the bundle by anyone who has the signer's public key.
    """
    endpoint = known_location([location], load_case(case))
    store = session.store(endpoint)
    _make_directory(to)
    if bool(keys) == bool(table) or (row and not table):
        raise UsageError(
            "name the objects, or --table with perhaps --row",
            next_step="moveout prove LOCATION photos/1.jpg",
        )
    wanted = _of_table(store, table, row, source) if table else _of_keys(set(keys or ()), source)
    needle = leaf_json.key_field(keys[0]) if keys and len(keys) == 1 else ""
    written = []
    for found in bundle_tree.prove(store, wanted, needle):
        file = to / f"{sha256(found.leaf).hexdigest()[:16]}{SUFFIX}"
        file.write_bytes(found.encode())
        written.append((str(file), found.item))
    missing = sorted(set(keys or ()) - {str(item.get("key")) for _, item in written})
    if missing or not written:
        what = repr(missing[0]) if missing else f"a part of the table {table}"
        raise GoneError(f"the bundle at {store.location} does not list {what}", next_step="check the name")
    return Proved(store.location, written)


def _of_keys(keys: set[str], source: str | None) -> Callable[[Item], bool]:
    return lambda item: item.get("key") in keys and source in {None, item["source"]}


def _of_table(store: Store, table: str, row: str | None, source: str | None) -> Callable[[Item], bool]:
    def named(item: Item) -> bool:
        return item["kind"] == "part" and table in _names_of(item) and source in {None, item["source"]}

    if row is None:
        return named
    column, equals, value = row.partition("=")
    if not equals:
        raise UsageError(f"--row {row!r} is not COLUMN=VALUE")
    return lambda item: named(item) and part_with(store, str(item["file"]), column, value)


def _names_of(item: Item) -> set[object]:
    """Return by which names an item is meant."""
    if item["kind"] == "part":
        return {item["table"], f"{item['schema']}.{item['table']}", item["file"]}
    return {item["key"]}


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"{path} cannot be made: {exc.strerror}") from exc


@dataclass(frozen=True, slots=True)
class Checked:
    """What a proof came to. ``why`` says what does not hold, empty where all does."""

    file: str
    why: str
    item: Item | None
    checkpoint: Checkpoint | None
    signers: Mapping[PublicKey, str]

    @property
    def exit_code(self) -> int:
        """6 where it proves nothing."""
        return DamageError.exit_code if self.why else OK

    def as_json(self) -> dict[str, Any]:
        """Return what is proved."""
        found = self.checkpoint
        return {
            "file": self.file,
            "holds": not self.why,
            "why": self.why,
            "item": self.item,
            "bundle": found.bundle if found else None,
            "root": found.root if found else None,
            "signed_by": list(self.signers.values()),
            "verifiers": [checkpoint.verifier(found.bundle, one) for one in self.signers] if found else [],
        }

    def draw(self, console: Console) -> None:
        """Say what is proved."""
        if self.why or self.item is None or self.checkpoint is None:
            console.print(Text(f"{self.file} proves nothing: {self.why}", style="bold red"))
            return
        who = ", ".join(self.signers.values())
        console.print(Text(f"{who} signed that the bundle {self.checkpoint.bundle} holds {_said(self.item)}"))


@verb(app, "check-proof")
def check_command(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof.")],
    case: CaseFile = None,
    signers: Signers = None,
) -> Checked:
    """Check such a proof, without the bundle.

    The way up to the root, and who signed that.
    """
    del session
    trust = load_trust(signers, load_case(case))
    if trust is None:
        raise UsageError(
            "whose signature should count? No list of signers is named",
            next_step="add --signers FILE with the line that the signer's `moveout keys show` printed",
        )
    try:
        with file.open("rb") as data:
            found = inclusion_proof.decode(data.read(inclusion_proof.MAX_BYTES + 1))
            item = found.item
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        return Checked(str(file), f"it cannot be read: {exc}", None, None, {})
    who = _signed_by(found.checkpoint, trust)
    why = "" if who else f"its checkpoint is signed by nobody in {trust.source}"
    why = why if found.holds else "the item is not in the tree whose root was signed"
    return Checked(str(file), why, item, found.checkpoint, who)


def _signed_by(found: Checkpoint, trust: Trust) -> dict[PublicKey, str]:
    return {public: trust.names[public] for public in found.signers(trust.names)}


def _said(item: Item) -> str:
    if item["kind"] == "part":
        return plain(f"{item['file']}, {item['rows']} rows of {item['table']}, SHA-256 {item['sha256']}")
    state = (
        f"SHA-256 {item['sha256']}"
        if item["disposition"] == "exported"
        else f"{item['disposition']}: {item['reason']}"
    )
    return plain(f"{item['bucket']}/{item['key']}, {item['size']} bytes, {state}")
