"""Somebody changes one thing in a bundle, its signatures, log, tree, proofs or documents: it is found, by name."""

from __future__ import annotations

import random
import sys

import pytest

from migrate.bundle import layout
from migrate.custody import documents, receipt, sampling_audit
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import record, record_seal, record_stamp
from migrate.custody.sampling_audit import Question, Seed
from migrate.custody.signing import bundle_signatures, timestamps
from migrate.custody.tree import bundle_tree, inclusion_proof
from migrate.errors import MoveoutError
from migrate.runtime.progress import Silent
from migrate.verify.run import Level, verify
from scripts.shelf import shelf
from scripts.timestamp_authority import Authority, serving
from tests.bundle.test_hostile import Memory
from tests.custody.conftest import against_bundle
from tests.custody.tools import BESIDE, Files, Scoreboard, Tools
from tests.transfer.bags import contents


@pytest.fixture(scope="module")
def kept(tmp_path_factory, make_key) -> tuple[str, Files, Authority]:
    """Everything that can lie with a bundle: (its location, all files with the proofs, who stamped it)."""
    provider, customer = make_key("provider"), make_key("customer")
    location = shelf(str(tmp_path_factory.mktemp("kept") / "bundle"), 300)
    for signer in (provider, customer):
        bundle_signatures.sign_bundle(location, signer)
    bundle_tree.store_tree(location, [provider, customer])
    record_seal(location, provider, [provider, customer])
    with serving(Authority(tmp_path_factory.mktemp("authority"))) as authority:
        record_stamp(location, provider, authority.url)
    record(location, customer, "verified", {"level": "full", "findings": 0})
    received = receipt.write(location, receipt.Checked("full", 5, 100, []))
    receipt.acknowledge(location, received, documents.signatures_of(received, [customer]), provider)
    sampling_audit.audit(
        location, Question(0.5, 0.5), provider, None, seed=Seed(b"s" * 32), workers=1, progress=Silent()
    )
    root = bundle_signatures.root_of(location)
    certificate = documents.make(
        "erasure", "Certificate", {"bundle": "b", "root": root, "location": location.location}
    )
    documents.keep(location, certificate, [provider])
    details = {"file": certificate.key, "sha256": certificate.sha256}
    custody_log.append(
        location, provider, lambda _: [CustodyEvent("noted", "b", root, location.location, details)]
    )
    files = contents(location)
    for number, one in enumerate(
        bundle_tree.prove(location, lambda item: str(item.get("key", "")) < "photos/0000003")
    ):
        files[f"{BESIDE}{number}.tlog-proof"] = one.encode()
    return location.location, files, authority


def findings(where: str, files: Files, known) -> str:
    """All that is said of a bundle and the proofs beside it."""
    store = Memory({key: data for key, data in files.items() if not key.startswith(BESIDE)})
    store.location = where
    said: list[object] = []
    looks = (
        lambda: verify(store, Level.FULL, workers=1, progress=Silent()).findings,
        lambda: documents.read_all(store)[1],
        lambda: timestamps.stamps(store)[1],
        lambda: bundle_tree.check(store, known, deep=True),
        lambda: custody_log.read(store).findings,
        lambda: against_bundle(store),
    )
    for look in looks:
        try:
            said += look()
        except MoveoutError as exc:
            said.append(exc)
    said += [
        f"{key} proves nothing" for key in files if key.startswith(BESIDE) and not proves(files[key], known)
    ]
    return "\n".join(map(str, said))


def proves(data: bytes, known) -> bool:
    try:
        proof = inclusion_proof.decode(data)
        return proof.holds and len(proof.checkpoint.signers(known)) == len(known) and bool(proof.item)
    except ValueError:
        return False


def change(files: Files, draw: random.Random) -> tuple[str, Files]:
    """Change one file in one way; return its name and all files."""
    key = draw.choice(sorted(files))
    data = files[key]
    at = draw.randrange(len(data))
    kind = draw.randrange(8)
    other = dict(files)
    if kind == 0 and not key.startswith(BESIDE):
        del other[key]
    elif kind == 1:
        other[key] = data[:at]
    elif kind == 2:
        other[key] = data[:at] + draw.randbytes(1 + draw.randrange(9)) + data[at:]
    elif kind == 3 and not key.startswith(
        BESIDE
    ):  # in another's location a proof still proves what it proves
        other[key] = files[draw.choice([name for name in sorted(files) if files[name] != data])]
    elif kind == 4:
        lines = data.splitlines(keepends=True)
        draw.shuffle(lines)
        other[key] = b"".join(lines)
    elif kind == 5:
        lines = data.splitlines(keepends=True)
        del lines[draw.randrange(len(lines))]
        other[key] = b"".join(lines)
    else:
        other[key] = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    return key, other


@pytest.mark.parametrize(
    ("seed", "times"),
    [(150, 15), *(pytest.param(seed, 300, marks=pytest.mark.torture) for seed in range(10))],
)
def test_one_change_anywhere_is_found_by_its_name(kept, make_key, tmp_path, capsys, seed, times):
    """And the standard tools find what is theirs; every fifth is shown to them."""
    where, files, authority = kept
    known = [make_key("provider").public, make_key("customer").public]
    assert findings(where, files, known) == ""
    tools = Tools(tmp_path / "bundle", files, authority, known)
    assert [tool for key in files for tool in tools.refuse(key, files)] == []
    draw, board = random.Random(seed), Scoreboard()
    while board.changes < times:
        key, changed = change(files, draw)
        if changed == files:
            continue
        problems = findings(where, changed, known)
        assert problems, (key, board.changes)
        assert key in problems or stands_for(key, problems), (key, problems)
        asked = board.changes % 5 == 0
        refused = tools.refuse(key, changed) if asked else None
        assert refused or not asked or tools.may_accept(key, changed), (key, board.changes)
        board.add(key, refused)
    if times > 60:
        with capsys.disabled():
            sys.stdout.write(str(board))


def stands_for(key: str, said: str) -> bool:
    """A signature that is gone is named by what it had signed; the files of the tree are known by each other."""
    signed = key.rpartition("/")[2].removesuffix(".sig").rpartition(".")[0]
    if key.endswith(".sig"):
        return f"{signed}: lacks the signature" in said
    return key in {layout.TREE, layout.TREE_NODES, layout.CHECKPOINT} and "sig/" in said
