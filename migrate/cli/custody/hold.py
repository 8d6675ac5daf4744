"""``moveout hold``: nothing of a bundle can be changed or removed until a day, or until it is released."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle.reader import not_sealed, require_files
from migrate.case.model import Custody, Endpoint
from migrate.cli import app
from migrate.cli.common.document_files import (
    DocumentsTo,
    draw_left_out,
    read_files,
    show_release,
    write_files,
)
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import (
    CaseFile,
    CaseFileHere,
    LocationWord,
    case_here,
    known_location,
    moment_to_come,
)
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signing_keys import SigningOptions, custody_of, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.cli.custody.hold_source import SourceHolds, TryAs, group, source_status
from migrate.custody import bundle_hold, cross_checks, documents, hold_release
from migrate.custody.bundle_hold import Protection, Terms
from migrate.custody.hold_release import Waiting
from migrate.custody.log import custody_log
from migrate.errors import OK, DamageError, GoneError, IncompleteError, NotAllowedError, UsageError
from migrate.number_text import count_words, moment_words, things
from migrate.storage.api import MultipartStore, Store
from migrate.storage.object_lock import ObjectLock
from migrate.storage.registry import open_object_lock

if TYPE_CHECKING:
    from migrate.custody.signing.allowed_signers import Trust
    from migrate.custody.signing.keys import PublicKey, Signer

app.add_typer(group, name="hold")

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_RELEASE = re.compile(r"release-[0-9a-f]{16}\.json")
_Until = Annotated[str, typer.Option(metavar="T", help="The end: 2027-01-31T00:00:00Z, or 30d from now.")]
_Reason = Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the custody log.")]


class Firmness(StrEnum):
    """Who may end a retention before its time."""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


class HeldBundle(Struct, frozen=True):
    """What the location says of its locks. ``waiting``: releases that have not ended the hold; ``case_option`` names
    the case file; ``refusal`` says why nothing can be held there.
    """

    location: str
    protection: Protection
    waiting: Sequence[Waiting] = ()
    case_option: str = ""
    refusal: NotAllowedError | None = None

    @property
    def exit_code(self) -> int:
        """3 where something that should be held is not."""
        return OK if self.protection.is_held else IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return counts, what is unprotected, and which releases wait."""
        waiting = [
            {
                "release": release.document.key,
                "reason": release.document.value["reason"],
                "time": release.document.value["time"],
                "signed_by": list(release.signed),
                "missing": list(release.missing),
                "until": release.until,
            }
            for release in self.waiting
        ]
        counts = as_dict(self.protection)
        return {"location": self.location, "held": self.protection.is_held, **counts, "waiting": waiting}

    def draw(self, console: Console) -> None:
        """Print what is held and what is not."""
        survey = self.protection
        until = f" until {moment_words(survey.until)}" if survey.until else ""
        legal = (
            f", {count_words(survey.legal)} of them by a legal hold without an end" if survey.legal else ""
        )
        counted = (
            f"{count_words(survey.protected)} of {things(survey.versions, 'version')} protected{until}{legal}"
        )
        if survey.is_held:
            console.print(Text(f"HELD: {self.location}: {counted}, each read back"))
        else:
            console.print(Text(f"NOT HELD: {self.location}: {counted}", style="bold red"))
            if survey.protected:
                draw_findings(console, survey.findings)
            step = f"moveout hold place {shlex.quote(self.location)} --until T --reason TEXT"
            step += " locks every version of every file"
            if self.refusal is not None:
                console.print(Text(f"  {self.refusal}"))
                step = self.refusal.next_step
            console.print(Text(f"→ {step}"))
        if survey.later and survey.protected:
            console.print(
                f"{things(survey.later, 'version')} of the log and of documents came later: free to be removed"
            )
        for release in self.waiting:
            self._draw_waiting(console, release)

    def _draw_waiting(self, console: Console, release: Waiting) -> None:
        value = release.document.value
        state = (
            "waits for signatures" if release.missing else "has all its signatures, and was not carried out"
        )
        sentence = f"A release {state}, for the reason {value['reason']!r}"
        console.print(Text(plain(f"{sentence} ({release.document.key}, {release.document.shown_moment})")))
        signers = ", ".join(release.signed.values()) or "nobody whom the hold names"
        console.print(Text(plain(f"  signed by {signers}")))
        for lacking in release.missing:
            console.print(Text(plain(f"  {lacking}")))
        end = f"ends by itself at {moment_words(release.until)}" if release.until else "has no end of its own"
        console.print(f"  without it the hold {end}")
        reason = _shell_word(str(value["reason"]))
        words = ("moveout hold release", shlex.quote(self.location), self.case_option, "--reason", reason)
        does = "signs it, and carries it out with the last signature" if release.missing else "carries it out"
        console.print(Text(f"→ this {does}:"))
        console.print(Text(f"    {' '.join(filter(None, words))} --key KEY"), wrap=False)


def _shell_word(text: str) -> str:
    """Return a text as a word for a shell, on one line: the command that is printed signs the very same reason. Other
    characters than printable ones stand as escapes of bash, ksh and zsh (POSIX.1-2024, "Dollar-Single-Quotes").
    """
    if text.isprintable():
        return shlex.quote(text)
    escapes = {"\\": "\\\\", "'": "\\'"}
    characters = (
        escapes.get(character, character)
        if character.isprintable()
        else f"\\x{ord(character):02x}"
        if character < "\x80"
        else f"\\U{ord(character):08x}"
        for character in text
    )
    return f"$'{''.join(characters)}'"


def open_both(session: Session, location: Endpoint) -> tuple[MultipartStore, ObjectLock]:
    """Return the store and the object lock of a location."""
    return session.store(location), open_object_lock(
        location.url, secrets=location.reveal(), note=session.progress.note
    )


@verb(
    group,
    "place",
    title="hold place",
    workers=True,
    examples=('hold place -c case.toml --until 30d --legal --reason "our notice"',),
)
def place_command(
    session: Session,
    until: _Until,
    reason: _Reason,
    words: LocationWord = None,
    *,
    legal: Annotated[
        bool, typer.Option("--legal", help="Add a legal hold, which lasts until it is released.")
    ] = False,
    mode: Annotated[
        Firmness, typer.Option(help="compliance: nobody can end the hold earlier, not even an administrator.")
    ] = Firmness.GOVERNANCE,
    case: CaseFile = None,
    signing: SigningOptions,
) -> HeldBundle:
    """Lock every version of every file of a bundle.

    Each lock is read back. The bucket must have Object Lock. No existing lock is weakened. If it was interrupted,
    repeat the command to finish.
    """
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    store, object_lock = open_both(session, known_location(words, loaded))
    custody = custody_of(loaded)
    owners = _release_owners(custody, load_trust(None, loaded))
    terms = Terms(moment_to_come(until), "COMPLIANCE" if mode is Firmness.COMPLIANCE else "GOVERNANCE", legal)
    details = {
        "reason": reason,
        "release_keys": list(custody.release_keys),
        "release_quorum": custody.release_quorum if custody.release_keys else 0,
    }
    details |= {"release_owners": owners} if owners else {}
    return _place(session, (store, object_lock), terms, details, signer)


def _place(
    session: Session, held: tuple[Store, ObjectLock], terms: Terms, details: dict[str, Any], signer: Signer
) -> HeldBundle:
    workers = session.workers(default=TRANSFER_WORKERS)
    protection = bundle_hold.place(
        *held, terms, workers=workers, progress=session.progress, details=details, signer=signer
    )
    return HeldBundle(held[0].location, protection)


def _release_owners(custody: Custody, trust: Trust | None) -> dict[str, list[str]]:
    """Return the names of the owners of the release keys, as the case's list has them. Raises ``UsageError`` where a
    key is none, or none that the list has, or where the keys have too few owners: nobody could end the hold.
    """
    listed = {public.fingerprint: public for public in trust.keys if trust.name(public)} if trust else {}
    for fingerprint in custody.release_keys:
        if _FINGERPRINT.fullmatch(fingerprint) is None:
            wrong = "is no fingerprint"
        elif trust is not None and fingerprint not in listed:
            wrong = f"is of no key in {trust.source}"
        else:
            continue
        raise UsageError(
            f"[custody] release_keys: {fingerprint} {wrong}, and a hold that names it might never end",
            next_step="moveout keys show FILE prints the fingerprint, and the line for the list of signers",
        )
    owners = {key: sorted(trust.owners(listed[key])) for key in custody.release_keys} if trust else {}
    if custody.release_keys and custody.release_quorum > 1:
        _check_quorum(custody, owners, trust)
    return owners


def _check_quorum(custody: Custody, owners: Mapping[str, Sequence[str]], trust: Trust | None) -> None:
    rule = f"[custody] release_quorum is {custody.release_quorum}"
    if trust is None:
        raise UsageError(
            f"{rule}, and no list says whose the release keys are: two of them may be one party's",
            next_step="name the list of signers: [custody] signers",
        )
    if (count := hold_release.count_owners(custody.release_keys, owners)) < custody.release_quorum:
        names = ", ".join(sorted({name for names in owners.values() for name in names}))
        raise UsageError(
            f"{rule}, and by {trust.source} the release keys have {things(count, 'owner')} ({names}): the hold"
            " could never end",
            next_step="name keys of more owners, or a smaller quorum",
        )


@verb(group, "extend", title="hold extend", workers=True, examples=("hold extend -c case.toml --until 60d",))
def extend_command(
    session: Session,
    until: _Until,
    words: LocationWord = None,
    *,
    case: CaseFile = None,
    signing: SigningOptions,
) -> HeldBundle:
    """Extend a hold, on the same terms.

    Files that were added since are locked, too. A hold that was released is not extended: place a new one.
    """
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    store, object_lock = open_both(session, known_location(words, loaded))
    log, trust = custody_log.read(store), load_trust(None, loaded)
    # A stranger's entry neither ends a hold nor has terms that would be signed.
    log = replace(log, entries=log.counted(trust)) if trust else log
    standing = bundle_hold.last_standing(log, store.location)
    if not standing:
        by = f" by a key that {trust.source} counts" if trust else ""
        raise UsageError(
            f"no hold is in the custody log at {store.location}{by}",
            next_step=f"moveout hold place {shlex.quote(store.location)} --until T --reason TEXT",
        )
    before = standing[-1].what.details
    released = bundle_hold.release_of(log, store.location, standing[-1])
    if released is not None:
        raise UsageError(
            f"the hold at {store.location} was released on {moment_words(released.moment)}"
            f" ({released.what.details.get('reason', 'no reason is recorded')}), so there is none to extend",
            next_step=f"moveout hold place {shlex.quote(store.location)} --until T --reason TEXT holds it again",
        )
    moment = moment_to_come(until)
    if moment < (end := bundle_hold.end_of(standing[-1])):
        raise UsageError(
            f"{until!r} is sooner than {moment_words(end)}, until when it lasts",
            next_step="no hold is shortened",
        )
    terms = Terms(
        moment,
        "COMPLIANCE" if before.get("mode") == "COMPLIANCE" else "GOVERNANCE",
        bool(before.get("legal")),
    )
    details = {name: value for name, value in before.items() if name.startswith(("reason", "release_"))}
    return _place(session, (store, object_lock), terms, details, signer)


@verb(
    group,
    "status",
    title="hold status",
    workers=True,
    examples=("hold status -c case.toml", "hold status moveout-hold.json"),
)
def status_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="LOCATION", help="The bundle, an undo file, or URLs of sources."),
    ] = None,
    *,
    try_as: TryAs = "",
    case: CaseFileHere = None,
) -> HeldBundle | SourceHolds:
    """Read every lock again, and name what is not protected.

    Shows releases that wait, and whose signatures they lack. With an undo file, or URLs of sources: says which holds
    on these sources are in force.
    """
    loaded = load_case(case_here(case, words))
    sources = source_status(session, words or [], loaded, try_as)
    if sources is not None:
        return sources
    store, object_lock = open_both(session, known_location(words, loaded))
    workers = session.workers(default=TRANSFER_WORKERS)
    protection = bundle_hold.survey(store, object_lock, workers=workers)
    if not protection.versions:  # a bundle that delete markers hide has some
        require_files(store)
    if protection.versions and bundle_hold.is_erased(store, object_lock):
        raise not_sealed(store)
    return HeldBundle(
        store.location,
        protection,
        waiting=_waiting(store, load_trust(None, loaded)),
        case_option=loaded.option if loaded else "",
        refusal=None if protection.protected else _refusal(object_lock),
    )


def _refusal(object_lock: ObjectLock) -> NotAllowedError | None:
    try:
        object_lock.check_lock()
    except NotAllowedError as exc:
        return exc
    return None


def _waiting(store: Store, trust: Trust | None) -> list[Waiting]:
    """Return the releases that wait at a location; none where nobody can say what bundle lies there."""
    try:
        return hold_release.waiting(store, trust)
    except (DamageError, GoneError, UsageError):
        return []


class Released(Struct, frozen=True):
    """A release that ended a hold, or that lacks signatures. ``files`` are copies outside of the location;
    ``left_out`` the keys of strangers, whose signatures were not stored; ``case_option`` names the case file.
    """

    location: str
    done: hold_release.Released
    files: Sequence[str] = ()
    left_out: Sequence[PublicKey] = ()
    case_option: str = ""

    @property
    def exit_code(self) -> int:
        """3 where signatures are missing, and the bundle is held as before."""
        return IncompleteError.exit_code if self.done.missing else OK

    def as_json(self) -> dict[str, Any]:
        """Return the release, who signed it, what is missing, and the counts."""
        protection = self.done.protection
        return {
            "location": self.location,
            "release": self.done.document.key,
            "released": not self.done.missing,
            "signed_by": [public.fingerprint for public in self.done.document.signers],
            "missing": list(self.done.missing),
            "protected": protection.protected if protection else None,
            "until": protection.until if protection else None,
            "written": list(self.files),
            "left_out": [public.fingerprint for public in self.left_out],
        }

    def draw(self, console: Console) -> None:
        """Print what became of the hold, or whose signatures are missing."""
        draw_left_out(console, self.left_out)
        protection = self.done.protection
        if protection is None:
            self._draw_waiting(console)
        else:
            console.print(f"Released: {self.location} ({self.done.document.key})")
        if protection and protection.protected:
            until = f" until {moment_words(protection.until)}" if protection.until else ""
            console.print(
                f"Locked as before: {things(protection.protected, 'version')}{until}; nobody can end that sooner"
            )
        for file in self.files:
            console.print(f"  {file}", wrap=False)

    def _draw_waiting(self, console: Console) -> None:
        location = shlex.quote(self.location)
        reason = _shell_word(str(self.done.document.value["reason"]))
        console.print(Text(f"NOT RELEASED: {self.location}", style="bold red"))
        for sentence in self.done.missing:
            console.print(Text(plain(f"  {sentence}")))
        for document in self.done.others:
            other = (
                f"  another release waits there, for the reason {document.value['reason']!r} ({document.key})"
            )
            console.print(Text(plain(other)))
        command = f"moveout hold release {location}"
        console.print("→ an owner whose signature is missing gives this where they are:")
        console.print(Text(f"    {command} --reason {reason} --key KEY"), wrap=False)
        if not self.files:
            console.print("  or signs a file, if they may not write there: add --to DIR, which writes it")
            return
        file = shlex.quote(self.files[0])
        console.print("  or, if they may not write there, signs the file, and you carry it out:")
        console.print(Text(f"    moveout custody sign {file} --key KEY"), wrap=False)
        console.print(Text(" ".join(filter(None, (f"    {command} {file}", self.case_option)))), wrap=False)


@verb(
    group,
    "release",
    title="hold release",
    workers=True,
    examples=(
        'hold release -c case.toml --reason "received" --to exchange',
        "hold release -c case.toml exchange/release-0123456789abcdef.json",
    ),
)
def release_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION RELEASE",
            help="The bundle, and a release that others have signed: a file release-….json.",
        ),
    ] = None,
    *,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="The reason, which all owners sign. A file has it.")
    ] = "",
    to: DocumentsTo = None,
    case: CaseFile = None,
    signing: SigningOptions,
) -> Released:
    """End a hold, with the keys that it names.

    It needs the keys of as many owners as the hold says: all at once, or each owner gives the same command on their
    own machine. An owner who may not write at LOCATION signs the file (moveout custody sign). With the last
    signature the locks are lifted.
    """
    loaded = load_case(case)
    signers = signing.need(loaded)
    file, location = _split_words(words or [])
    if bool(reason) == bool(file):
        raise UsageError(
            "give either the reason of a new release, or the file of one that was signed",
            next_step=f"moveout hold release {shlex.quote(known_location(location, loaded).shown)} --reason TEXT",
        )
    store, object_lock = open_both(session, known_location(location, loaded))
    cross_checks.check_not_put_back(store)
    trust = load_trust(None, loaded)
    left_out: Sequence[PublicKey] = ()
    if file:
        document, left_out = hold_release.accept(store, *read_files(file), trust)
        show_release(session, document)
    else:
        document = hold_release.prepare(store, reason, trust)
    done = hold_release.release(
        store,
        object_lock,
        document,
        signers,
        workers=session.workers(default=TRANSFER_WORKERS),
        progress=session.progress,
        trust=trust,
    )
    signatures = documents.signatures_of(done.document, signers)
    files = write_files(to, done.document, signatures) if to else []
    return Released(store.location, done, files, left_out, loaded.option if loaded else "")


def _split_words(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the file among the words, which is named like a release, and the others. Raises ``UsageError``."""
    files = [word for word in words if _RELEASE.fullmatch(word.rpartition("/")[2])]
    if len(files) > 1:
        raise UsageError(
            f"the command takes one release; {len(files)} given: {', '.join(files)}",
            next_step="name the release of the holds that stand now",
        )
    return (Path(files[0]) if files else None), [word for word in words if word not in files]
