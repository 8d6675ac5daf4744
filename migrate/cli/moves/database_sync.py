"""Make a database equal to another one, without a bundle of the user's: a case of its own in a working folder.

The base goes through a temporary bundle in that folder, and so do the changes. So the folder takes about as much room
as an export. After the switch it is of no use any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from migrate.case.loader import load as load_case
from migrate.case.model import Case, Endpoint
from migrate.cli.common.options import HoldOptions
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console, Text
from migrate.cli.cutover import Switched, run_cutover, switched_before
from migrate.cli.moves.cutover_buckets import BucketOptions, cutover_buckets
from migrate.cli.moves.move_summary import MoveResult
from migrate.cli.moves.whole_move import run_case
from migrate.cli.restore import RestoreOptions
from migrate.custody.signing.keys import Signer
from migrate.errors import OK, IncompleteError, NotEqualError, UsageError
from migrate.number_text import bytes_words
from migrate.runtime.state_folder import state_folder
from migrate.storage.local.errors import translate_os
from migrate.storage.local.whole_file import write_whole

_CASE = "moveout.toml"


class DatabaseSync(Struct, frozen=True):
    """What the user asks for. ``work``: the working folder, None for one of moveout's own. ``cutover``: switch at the
    end.
    """

    name: str
    source: Endpoint
    destination: Endpoint
    work: Path | None = None
    create: bool = False
    cutover: bool = False

    @property
    def folder(self) -> Path:
        """Where everything of this sync lies."""
        if self.work is not None:
            return self.work
        both = f"{self.source.url}\n{self.destination.url}"
        return state_folder() / "sync" / f"{self.name}-{hashlib.sha256(both.encode()).hexdigest()[:8]}"

    def case(self) -> Case:
        """Return the case of this sync. Its file is written where it is missing: the user can give it to other
        commands. It has no secrets. Raises ``UsageError`` where the folder belongs to another sync, and errors of
        ``migrate.errors`` where the folder cannot be made.
        """
        path = self.folder / _CASE
        text = _case_text(self)
        if not path.exists():
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as exc:
                error = translate_os(exc, self.folder)
                error.next_step = "name another folder to work in: --work DIR"
                raise error from exc
            write_whole(path, text.encode(), crash_point="sync.case_file")
        elif path.read_text(encoding="utf-8") != text:
            raise UsageError(f"{path} is of another move", next_step="give --work with another folder")
        case = load_case(path)
        source = replace(self.source, follow=True)
        return replace(case, sources={self.name: source}, destinations={self.name: self.destination})


class SyncedDatabase(Struct, frozen=True):
    """What a sync of a database came to. ``switched``: what the cutover did. It is None where nobody asked for one, or
    where something was missing before it. ``size_bytes``: of the working folder.
    """

    move: MoveResult
    switched: Switched | None
    folder: Path
    size_bytes: int
    cutover: bool

    @property
    def exit_code(self) -> int:
        """The code of the cutover, else of the steps before; 6 where these left a gap, so that nothing was switched."""
        if self.switched is not None:
            return self.switched.exit_code
        is_refused = self.cutover and self.move.exit_code == IncompleteError.exit_code
        return NotEqualError.exit_code if is_refused else self.move.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the result of the steps, and of the cutover."""
        switched = self.switched.as_json() if self.switched else None
        folder = {"folder": str(self.folder), "size_bytes": self.size_bytes}
        is_switched = self.switched is not None and self.switched.is_switched
        result = {"move": self.move.as_json(), "cutover": switched, "work": folder}
        return result | ({"switched": is_switched} if self.cutover else {})

    def draw(self, console: Console) -> None:
        """Print both, and where the working folder lies."""
        if self.switched is None:
            self.move.draw(console)
        else:
            self.switched.draw(console)
        if self.cutover and self.switched is None:
            console.print(Text("NOT SWITCHED: something is missing, see above", style="bold red"))
        case = self.folder / _CASE
        console.print(
            Text(f"The working folder {self.folder} takes {bytes_words(self.size_bytes)}.", style="dim")
        )
        if self.switched is not None and self.switched.is_switched:
            console.print(
                Text(f"→ moveout clean -c {case} --changes --yes ends it for good; then remove the folder")
            )


def sync_database(
    session: Session, asked: DatabaseSync, hold: HoldOptions, signers: Sequence[Signer], *, yes: bool
) -> SyncedDatabase:
    """Bring the base and the changes over, until nothing is behind; then switch, where that is asked for."""
    case = asked.case()
    session.progress.note(
        f"the base and its changes go through {asked.folder}, which takes about as much room as an export"
    )
    move = run_case(
        session,
        case,
        RestoreOptions(scheduler=None, create=asked.create),
        keeps_bundle=False,
    )
    # Nobody keeps this bundle, and nobody has asked for what else the server holds.
    move = replace(move, summary=replace(move.summary, only_copy=False, left_behind=None))
    switched = switched_before(session, case, hold, signers) if asked.cutover else None
    if asked.cutover and switched is None and move.exit_code == OK:
        buckets = cutover_buckets(session, case, BucketOptions(), signers)
        switched = run_cutover(session, case, buckets, hold, yes=yes)
    size_bytes = sum(path.stat().st_size for path in asked.folder.rglob("*") if path.is_file())
    return SyncedDatabase(move, switched, asked.folder, size_bytes, asked.cutover)


def _case_text(asked: DatabaseSync) -> str:
    """Return the case file of a sync."""
    name = json.dumps(asked.name)
    return (
        f"[case]\nname = {name}\nfollow = true\n\n[[source]]\nname = {name}\nurl = {json.dumps(asked.source.url)}\n\n"
        f'[bundle]\nlocation = "bundle"\n\n[[destination]]\nsource = {name}\n'
        f"url = {json.dumps(asked.destination.url)}\n"
    )
