"""Checkpoints and proofs are read by programs that share no code with moveout: one written from the specifications, and
Go's own libraries of signed notes and transparent logs.
"""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.custody.log.events import record, record_seal
from migrate.custody.signing.keys import KeyFile, PublicKey, create
from migrate.custody.tree import bundle_tree
from scripts.binaries import NOTES, find_own_program
from scripts.process import ServerError
from scripts.shelf import LONG_KEYS, ODD_KEY, shelf
from tests.cli.conftest import call
from tests.custody import notes
from tests.docs.pages import blocks

SIZE = 302


@pytest.fixture(scope="module")
def signed(tmp_path_factory, make_key):
    """A bundle of 300 objects and two parts of a table, signed by two."""
    location = shelf(str(tmp_path_factory.mktemp("shelf") / "bundle"), SIZE - 2, odd=(*LONG_KEYS, ODD_KEY))
    bundle_tree.store_tree(location, [make_key("provider"), make_key("customer")])
    return location


@pytest.fixture(scope="module")
def verifiers(signed, make_key, tmp_path_factory) -> list[str]:
    """The signers' keys as notes have them, provider's first: as ``check-proof`` says."""
    directory = tmp_path_factory.mktemp("proof")
    allowed = directory / "allowed"
    names = ("provider", "customer")
    allowed.write_text("".join(f"{name} {make_key(name).public.line}\n" for name in names))
    proved = call("prove", signed.location, ODD_KEY, "--to", directory, "--json")
    file = proved.json["result"]["proofs"][0]["file"]
    answer = call("check-proof", file, "--signers", allowed, "--json").json["result"]
    by_name = dict(zip(answer["signed_by"], answer["verifiers"], strict=True))
    return [by_name[name] for name in names]


def test_the_log_is_checked_by_standard_tools_as_the_format_says(location, provider, customer, tmp_path):
    """Also where a name has letters that JSON escapes; each change is seen."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not on this machine: the log is not checked by standard tools")
    key = create(tmp_path / "odd.key", "odd", None)
    odd = KeyFile(PublicKey(key.public.raw, 'Zo\u00eb \U0001f600\x7f"\\/<>'), key._private)
    record_seal(location, provider, [provider])
    record(
        location,
        odd,
        "noted",
        {"text": "\u2028\x01\t\x7f\U0001d11e", "size_bytes": 2**50, "deep": {"b": [1], "a": None}},
    )
    record(location, customer, "verified")
    (script,) = (text for text in blocks("docs/FORMAT.md", "sh") if "custody.jsonl" in text)
    bundle = Path(location.location.removeprefix("file://"))
    lines = [
        f"{name} {key.public.line}\n" for name, key in (("host", provider), ("odd", odd), ("acme", customer))
    ]
    (bundle / "allowed_signers").write_text("".join(lines))

    def printed():
        argv = ["bash", "-c", script]
        return subprocess.run(argv, cwd=bundle, capture_output=True, text=True, check=False).stdout

    *entries, verdict = printed().splitlines()
    assert [line.split()[4] for line in entries] == ["host", "host", "host", "odd", "acme"]
    assert verdict.endswith("true")
    log = bundle / layout.CUSTODY_LOG
    data = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(data[:-1]))
    assert printed().endswith("false\n")
    log.write_bytes(b"".join([data[0], *data[2:]]))
    assert "this follows another entry" in printed()
    log.write_bytes(b"".join(data).replace(b'"noted"', b'"voted"'))
    assert printed().count("Good ") == 4


def by_the_text(data: bytes, keys, _tmp_path):
    """Read by what is written from the specifications; None where it is refused."""
    try:
        return notes.read(data, keys)
    except notes.RefusedError:
        return None


def by_go(data: bytes, keys, tmp_path):
    """Read by Go's libraries; None where it is refused."""
    try:
        program = find_own_program(NOTES)
    except ServerError as error:
        pytest.skip(f"NOT TESTED with Go's libraries: {error}")
    file = tmp_path / "note"
    file.write_bytes(data)
    done = subprocess.run([program, file, *keys], capture_output=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.fixture(params=[by_the_text, by_go])
def read(request, tmp_path):
    """Each of the readers in turn."""
    return lambda data, keys: request.param(data, keys, tmp_path)


def test_they_take_the_checkpoint(signed, verifiers, read):
    data = signed.read(layout.CHECKPOINT)
    kept, root = bundle_tree.read(signed)[0], bundle_tree.root_of(signed)
    for keys, unknown in ((verifiers, 0), (verifiers[:1], 1), (verifiers[1:], 1)):
        found = read(data, keys)
        assert (found["origin"], found["size"]) == (f"moveout/{kept.bundle}", SIZE)
        assert found["hash"] == notes.base64.b64encode(kept.hash).decode()
        assert found["rest"] == f"tagmanifest-sha256 {root}\n"
        assert (found["signers"], found["unknown"]) == (len(keys), unknown)


def test_they_take_proofs(signed, verifiers, read):
    for key in ("photos/0000000.jpg", "photos/0000255.jpg", "photos/0000256.jpg", ODD_KEY, *LONG_KEYS):
        (proof,) = bundle_tree.prove(signed, lambda item, key=key: item.get("key") == key)
        found = read(proof.encode(), verifiers)
        assert (found["record"].encode(), found["index"]) == (proof.leaf, proof.index)


def test_they_refuse_what_was_changed(signed, verifiers, read):
    (proof,) = bundle_tree.prove(signed, lambda item: item.get("key") == ODD_KEY)
    draw = random.Random(2)
    for data in (signed.read(layout.CHECKPOINT), proof.encode()):
        assert read(data, verifiers) is not None
        end = data.index("\N{EM DASH}".encode())  # a line by a name that nobody knows counts for nothing
        for at in draw.sample(range(end), 40):
            spoilt = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            assert read(spoilt, verifiers) is None, (at, data[at : at + 1])
