"""``moveout sign``: a name is put to a sealed bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.case.model import Endpoint
from migrate.cli import app
from migrate.cli.common.options import CaseFile, LocationWord, one_location
from migrate.cli.common.session import Session
from migrate.cli.common.signing_keys import SigningOptions, custody_of, draw_signed
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console
from migrate.cli.common.verb import verb
from migrate.custody.log.events import record_seal, record_stamp
from migrate.custody.signing.bundle_signatures import SignatureFile, root_of, sign_bundle
from migrate.custody.signing.keys import Signer
from migrate.custody.tree.bundle_tree import store_tree
from migrate.errors import OK
from migrate.storage.api import Store


class SignedBundle(Struct, frozen=True):
    """A bundle and the signatures that were put to it."""

    location: str
    root: str
    signed: Sequence[SignatureFile]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return root and signatures."""
        signatures = [
            {"key": signed_file.key, "fingerprint": signed_file.public.fingerprint}
            for signed_file in self.signed
        ]
        return {"location": self.location, "root": self.root, "signatures": signatures}

    def draw(self, console: Console) -> None:
        """Print who signed what."""
        console.print(f"The bundle at {self.location}, root {self.root}")
        draw_signed(console, self.signed)


def sealed_by(store: Store, signers: Sequence[Signer], timestamp: str | None) -> list[SignatureFile]:
    """Put every key's name to the bundle that was just sealed at the location; the first key writes the custody log.
    ``timestamp`` is the URL of an authority that says when that was.
    """
    signed = [sign_bundle(store, signer) for signer in signers]
    if signers:
        store_tree(store, signers)
        record_seal(store, signers[0], signers)
        if timestamp:
            record_stamp(store, signers[0], timestamp)
    return signed


def run_sign(
    session: Session, location: Endpoint, signers: Sequence[Signer], timestamp: str | None
) -> SignedBundle:
    """Sign the bundle at a location with every key, and let the authority say when."""
    store = session.store(location)
    signed = sealed_by(store, signers, timestamp)
    return SignedBundle(store.location, root_of(store), signed)


@verb(app, "sign", bwlimit=True, examples=("sign bundle --key host.key",))
def sign_command(
    session: Session,
    words: LocationWord = None,
    *,
    case: CaseFile = None,
    signing: SigningOptions,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A timestamp authority (RFC 3161), to prove when it was signed."),
    ] = None,
) -> SignedBundle:
    """Sign a sealed bundle.

    Anyone can check the signature with ssh-keygen. Several keys may sign, at once or one after the other. Repeating
    the command changes nothing.
    """
    loaded = load_case(case)
    location = one_location(words or [], loaded.bundle if loaded else None)
    return run_sign(session, location, signing.need(loaded), timestamp or custody_of(loaded).timestamp)
