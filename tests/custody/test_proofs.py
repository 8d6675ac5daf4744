"""Proofs: one item shown, the root signed; whatever is changed, they prove nothing any more."""

import base64
import json
import random
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.cli.custody import prove
from migrate.custody.tree import (
    bundle_tree,
    checkpoint,
    inclusion_proof,
    leaves,
    merkle_tree,
)
from migrate.custody.tree.checkpoint import Checkpoint
from migrate.errors import DamageError, UsageError
from scripts.shelf import LONG_KEYS, ODD_KEY, index_table, shelf
from tests.cli.conftest import call
from tests.custody.conftest import in_memory

SCRIPT = Path(__file__).parents[2] / "docs" / "check_proof.py"


def by_recursion(leaves: list[bytes]) -> bytes:
    """The root as RFC 6962 defines it."""
    if len(leaves) < 2:
        return merkle_tree.leaf_hash(leaves[0]) if leaves else merkle_tree.EMPTY
    cut = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle_tree.sha256(b"\1" + by_recursion(leaves[:cut]) + by_recursion(leaves[cut:])).digest()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 255, 256, 257, 511, 513, 700])
def test_the_tree_is_that_of_rfc_6962_and_every_path_leads_to_its_root(size):
    leaves = [str(number).encode() for number in range(size)]
    hashes = merkle_tree.leaf_hashes(leaves)
    root = by_recursion(leaves)
    assert merkle_tree.top(hashes) == root
    assert merkle_tree.top(merkle_tree.grouped(hashes)) == root
    for index in range(0, size, 1 if size < 20 else 37):
        siblings = merkle_tree.path(hashes, index)
        assert merkle_tree.root_from_path(merkle_tree.leaf_hash(leaves[index]), index, size, siblings) == root
        for wrong in range(size if size < 20 else 3):
            if wrong != index:
                assert (
                    merkle_tree.root_from_path(merkle_tree.leaf_hash(leaves[index]), wrong, size, siblings)
                    != root
                )
        assert (
            merkle_tree.root_from_path(merkle_tree.leaf_hash(leaves[index]), index, size, [*siblings, root])
            != root
        )
    assert merkle_tree.root_from_path(root, size, size, []) is None


@pytest.fixture(scope="module")
def signed(tmp_path_factory, make_key):
    """A bundle of 700 objects, the last with odd keys, and two parts of a table, with its tree, signed."""
    location = shelf(str(tmp_path_factory.mktemp("shelf") / "bundle"), 700, odd=(*LONG_KEYS, ODD_KEY))
    bundle_tree.store_tree(location, [make_key("provider")])
    return location


def run_script(file, key):
    return subprocess.run(
        [sys.executable, "-I", SCRIPT, file, key], capture_output=True, text=True, check=False
    )


def wants(key: str):
    return lambda item: item.get("key") == key


def test_a_proof_of_every_kind_of_item_holds(signed, provider):
    size = bundle_tree.read(signed)[0].size
    assert size == 702
    for key in (
        "photos/0000000.jpg",
        "photos/0000255.jpg",
        "photos/0000256.jpg",
        "photos/0000693.jpg",
        ODD_KEY,
        *LONG_KEYS,
    ):
        (proof,) = bundle_tree.prove(signed, wants(key))
        again = inclusion_proof.decode(proof.encode())
        assert (again, again.holds, again.item["key"]) == (proof, True, key)
        assert again.checkpoint.signers([provider.public]) == [provider.public]
        assert len(proof.encode()) < 4096
    tree = json.loads(signed.read(layout.TREE))
    assert (tree["version"], len(bytes.fromhex(tree["seed"]))) == (1, 32)
    item = again.item
    assert (item["source"], item["disposition"], item["reason"]) == ("media", "exported", None)
    assert isinstance(item["size"], int)
    parts = list(bundle_tree.prove(signed, lambda item: item["kind"] == "part"))
    assert [one.item["file"] for one in parts] == [
        f"data/media/tables/1/part-00000{n}.parquet" for n in range(2)
    ]
    assert all(one.holds for one in parts)


@pytest.mark.parametrize(
    "key", [*LONG_KEYS, "k" * 1024], ids=["3", "4", "control", "quote", "backslash", "ascii"]
)
def test_a_proof_has_at_most_4_kb_whatever_the_key(key, provider, customer):
    """All else is as long as FORMAT.md says, too: names, ETag, version id, 2²⁰ leaves and two signatures."""
    row = index_table(1, (key,)).to_pydict() | {"version_id": ["v" * 100], "bucket": ["b" * 63]}
    row |= {"etag": ["e" * 64], "size": [10**14]}
    (batch,) = pa.table(row, schema=index_table(1).schema).to_batches()
    (text,) = leaves.objects(batch, "s" * 63)
    line = leaves.with_salt(text, leaves.salt(b"seed", 2**20 - 1))
    signed = checkpoint.Checkpoint(str(uuid4()), 2**20, b"h" * 32, "f" * 64).signed(provider).signed(customer)
    proof = inclusion_proof.Proof(line, 2**20 - 1, [b"s" * 32] * 20, signed)
    assert inclusion_proof.decode(proof.encode()).item["key"] == key
    assert 2048 < len(proof.encode()) <= 4096


@pytest.mark.parametrize(
    "wrong",
    [
        '{"item":3}',
        "[]",
        '{"item":{"kind":"part"}}',
        '{"item":{"kind":[]}}',
        '{"item":{"key":"a","key_base64":"YQ=="}}',
        "{",
    ],
)
def test_a_leaf_that_names_no_item_or_two_is_refused(wrong):
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        leaves.item_of(wrong.encode())


@pytest.mark.parametrize("said", [5, [5], [{"name": "x"}], [{"name": "x", "rows": float("inf")}]])
def test_parts_that_a_catalog_makes_no_sense_of_are_damage(said):
    row = CatalogRow("app", "table", 1, "public", "t", "", 0, 0, "", {}, {"parts": said})
    with pytest.raises(DamageError, match="parts of t"):
        leaves.parts(row)


def test_what_a_proof_shows_is_one_item_and_no_salt_of_another(signed):
    (proof,) = bundle_tree.prove(signed, wants("photos/0000007.jpg"))
    text = proof.encode() + proof.leaf
    assert b"photos/0000006" not in text
    assert bundle_tree.read(signed)[0].seed.hex().encode() not in text
    salts = {leaves.salt(bundle_tree.read(signed)[0].seed, n) for n in range(702)}
    assert len(salts) == 702
    assert sum(one.encode() in text for one in salts) == 1


def test_every_changed_byte_of_a_proof_undoes_it(signed, provider):
    (proof,) = bundle_tree.prove(signed, wants("photos/0000300.jpg"))
    data = proof.encode()
    draw = random.Random(3)
    for at in range(len(data)):
        spoilt = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        try:
            again = inclusion_proof.decode(spoilt)
        except ValueError:
            continue
        assert not (again.holds and again.checkpoint.signers([provider.public])), at


def test_the_script_takes_no_number_beyond_the_tree_and_prints_nothing_that_a_terminal_obeys(
    make_key, tmp_path
):
    """Who signs may write what he likes into the note, too."""
    signer, file = make_key("provider"), tmp_path / "one.tlog-proof"
    pub = make_key.path_of("provider").with_suffix(".pub")
    tree = [merkle_tree.leaf_hash(text) for text in (b"a", b"b", b"c")]
    siblings = merkle_tree.path(b"".join(tree), 2)
    signed = checkpoint.Checkpoint("b\x1b[2J", 3, merkle_tree.top(b"".join(tree)), "f" * 64).signed(signer)
    for number, code in ((2, 0), (3, 1), (6, 1), (-1, 1), (-2, 1)):
        file.write_bytes(inclusion_proof.Proof(b"c", number, siblings, signed).encode())
        done = run_script(file, pub)
        assert (done.returncode, "\x1b" in done.stdout) == (code, False), (number, done.stderr)


def test_the_script_in_the_docs_checks_it_without_moveout(signed, make_key, tmp_path):
    assert len(SCRIPT.read_text().splitlines()) <= 60
    for number, key in enumerate(("photos/0000301.jpg", ODD_KEY, *LONG_KEYS)):
        (inclusion,) = bundle_tree.prove(signed, wants(key))
        file = tmp_path / f"{number}.tlog-proof"
        file.write_bytes(inclusion.encode())
        pub = make_key.path_of("provider").with_suffix(".pub")
        process = subprocess.run(
            [sys.executable, "-I", SCRIPT, file, pub], capture_output=True, text=True, check=True
        )
        assert "the signature holds" in process.stdout
        assert inclusion.leaf.decode() in process.stdout
        assert all(line.isprintable() for line in process.stdout.splitlines())
    stranger = make_key.path_of("customer").with_suffix(".pub")
    assert run_script(file, stranger).returncode == 1
    other = base64.b64encode(inclusion.leaf.replace(b'"size":', b'"size":1'))
    data = inclusion.encode()
    hint = data.rindex(b" ") + 2
    for spoilt in (
        data.replace(base64.b64encode(inclusion.leaf), other),
        data.replace(b"@v1", b"@v2", 1),
        data[:hint] + b"#" + data[hint:],
        data + b"x",
    ):
        file.write_bytes(spoilt)
        assert run_script(file, pub).returncode == 1


def test_several_sign_the_root_and_a_second_time_changes_nothing(tmp_path, provider, customer):
    location = shelf(str(tmp_path / "b"), 5)
    bundle_tree.store_tree(location, [provider])
    bundle_tree.store_tree(location, [customer])
    before = location.read(layout.CHECKPOINT), location.read(layout.TREE)
    bundle_tree.store_tree(location, [provider, customer])
    assert (location.read(layout.CHECKPOINT), location.read(layout.TREE)) == before
    checkpoint_read = checkpoint.decode(before[0])
    assert set(checkpoint_read.signers([provider.public, customer.public])) == {
        provider.public,
        customer.public,
    }
    assert bundle_tree.check(location, [provider.public, customer.public], deep=True) == []
    assert "does not hold, or is by a key" in str(
        bundle_tree.check(location, [provider.public], deep=False)[0]
    )


def test_nobody_signs_a_tree_of_things_that_are_not_in_the_bundle(tmp_path, provider, customer):
    """Whoever may write there puts one before the next party signs: his leaves would be proved by that signature."""
    location = shelf(str(tmp_path / "b"), 5)
    bundle_tree.store_tree(location, [provider])
    tree = bundle_tree.read(location)[0]
    nodes = merkle_tree.leaf_hashes([b"a letter that nobody has written"])
    forged = replace(tree, size=1, nodes=nodes, hash=nodes)
    location.put(layout.TREE, bundle_tree._encode(forged))
    location.put(layout.TREE_NODES, nodes)
    assert bundle_tree.store_tree(location, [customer]).hash == tree.hash
    assert bundle_tree.read(location)[0] == tree
    assert bundle_tree.check(location, [provider.public, customer.public], deep=True) == []


class Rival:
    """A store before whose n-th writing somebody else signs as well."""

    def __init__(self, inner, left: int, rival) -> None:
        self._inner, self._left, self._rival = inner, left, rival

    def __getattr__(self, name):
        if name in {"put", "create", "replace"}:
            self._left -= 1
            if self._left < 0 and self._rival:
                rival, self._rival = self._rival, None
                bundle_tree.store_tree(self._inner, [rival])
        return getattr(self._inner, name)


@pytest.mark.parametrize("left", range(3))
def test_two_who_sign_the_root_at_once_both_have(tmp_path, provider, customer, left):
    location = shelf(str(tmp_path / "b"), 5)
    both = [provider.public, customer.public]
    stored = bundle_tree.store_tree(Rival(location, left, customer), [provider])
    assert set(stored.signers(both)) == set(both)
    assert bundle_tree.read(location)[1] == stored
    assert bundle_tree.check(location, both, deep=True) == []


def test_every_change_to_the_tree_is_found_with_its_name(signed, provider):
    draw, there = random.Random(5), in_memory(signed)
    for key in (layout.TREE, layout.TREE_NODES, layout.CHECKPOINT):
        data = there.read(key)
        for _ in range(30):
            at = draw.randrange(len(data))
            there.files[key] = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            problems = bundle_tree.check(there, [provider.public], deep=True)
            assert problems, (key, at)
            assert all(one.key.startswith("sig/") for one in problems), (key, at)
        del there.files[key]
        assert key in str(bundle_tree.check(there, [provider.public], deep=False)[0])
        there.files[key] = data
    assert bundle_tree.check(there, [provider.public], deep=True) == []


def test_a_tree_of_another_seal_proves_nothing(tmp_path, provider):
    location = shelf(str(tmp_path / "b"), 5)
    with pytest.raises(UsageError, match="no tree"):
        list(bundle_tree.prove(location, wants("x")))
    bundle_tree.store_tree(location, [provider])
    kept = bundle_tree.read(location)[0]
    other = shelf(str(tmp_path / "c"), 6)
    for key in (layout.TREE, layout.TREE_NODES, layout.CHECKPOINT):
        other.put(key, location.read(key))
    assert "another seal" in str(bundle_tree.check(other, [provider.public], deep=False)[0])
    with pytest.raises(DamageError):
        list(bundle_tree.prove(other, wants(ODD_KEY)))
    assert kept.size == 7


def test_the_commands(tmp_path, make_key):
    bundle, key = tmp_path / "bundle", make_key.path_of("provider")
    shelf(str(bundle), 40)
    assert call("prove", bundle, ODD_KEY).code == 2
    assert call("sign", bundle, "--key", key).code == 0
    allowed = tmp_path / "allowed"
    allowed.write_text(f"acme {make_key('provider').public.line}\n")
    proved = call("prove", bundle, ODD_KEY, "photos/0000003.jpg", "--to", tmp_path / "proofs", "--json")
    assert proved.code == 0, proved.err
    for one in proved.json["result"]["proofs"]:
        checked = call("check-proof", one["file"], "--signers", allowed)
        assert (checked.code, "acme signed" in checked.out) == (0, True), checked.err
    assert call("check-proof", one["file"]).code == 2
    allowed.write_text(f"other {make_key('customer').public.line}\n")
    assert call("check-proof", one["file"], "--signers", allowed).code == 6
    assert call("prove", bundle, "nothing/such").code == 7
    rows = call("prove", bundle, "--table", "public.people", "--row", "id=12", "--to", tmp_path, "--json")
    assert [one["item"]["file"][-8:] for one in rows.json["result"]["proofs"]] == [".parquet"], rows.err
    assert "part-000001" in rows.out
    absent = call("prove", bundle, "--table", "public.people", "--row", "id=4711", "--to", tmp_path)
    assert (absent.code, "has no row with id=4711" in " ".join(absent.err.split())) == (7, True), absent
    unlisted = call("prove", bundle, "--table", "public.nobody", "--row", "id=12", "--to", tmp_path)
    assert "does not list a part of the table public.nobody" in " ".join(unlisted.err.split()), unlisted
    allowed.write_text(f"acme {make_key('provider').public.line}\n")
    assert call("verify", bundle, "--signers", allowed).code == 0


def not_utf8() -> pa.Array:
    offsets = pa.py_buffer(bytes(4) + (2).to_bytes(4, "little"))
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])


def test_an_index_with_keys_that_are_no_text_is_damaged():
    table = index_table(1)
    (batch,) = table.set_column(table.schema.get_field_index("key"), "key", not_utf8()).to_batches()
    with pytest.raises(DamageError, match="data/media/index/"):
        leaves.objects(batch, "media")


@pytest.mark.parametrize(
    "column",
    [
        not_utf8(),
        pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), not_utf8()),
        pa.array([[2**62]], pa.list_(pa.duration("s"))),
        pa.array([[2**31 - 1]], pa.list_(pa.date32())),
        pa.array([0], pa.timestamp("us", "No/Such")),
    ],
    ids=["text", "list of texts", "list of spans", "list of days", "zone"],
)
def test_a_part_with_values_that_cannot_be_read_is_damaged(location, column):
    """Parquet checks no value when it reads them."""
    written = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": column}), written)
    location.put("data/part.parquet", written.getvalue().to_pybytes())
    with pytest.raises(DamageError, match=r"data/part\.parquet"):
        prove.part_with(location, "data/part.parquet", "id", "12")


def test_a_row_is_proved_only_of_a_part_with_the_bytes_that_were_signed(tmp_path, make_key):
    bundle = tmp_path / "bundle"
    shelf(str(bundle), 40)
    assert call("sign", bundle, "--key", make_key.path_of("provider")).code == 0
    words = ("prove", bundle, "--table", "public.people", "--to", tmp_path, "--row")
    assert call(*words, "id=\udcff").code == 2
    part = bundle / "data/media/tables/1/part-000001.parquet"
    pq.write_table(pq.read_table(part), part, compression="none")
    refused = call(*words, "id=12")
    assert (refused.code, "part-000001.parquet" in refused.err) == (6, True), refused.err
    part.unlink()
    refused = call(*words, "id=12")
    assert (refused.code, "part-000001.parquet" in refused.err) == (6, True), refused.err


@pytest.mark.parametrize(
    ("key", "is_base64"),
    [("photo.jpg", False), ('a"b', False), ('""', False), ('"""', True), ('"' * 4, False), ("\n" * 9, True)],
)
def test_a_key_stands_as_base64_where_that_is_shorter(key, is_base64):
    field = json.loads("{" + leaves.key_field(key) + "}")
    as_base64 = base64.b64encode(key.encode()).decode()
    assert field == ({"key_base64": as_base64} if is_base64 else {"key": key})
    assert is_base64 == (len(json.dumps(key)) - 2 > len(as_base64))


@pytest.mark.parametrize("key", [layout.TREE, layout.CHECKPOINT])
def test_a_tree_of_which_a_file_is_gone_is_named_by_that_file(tmp_path, provider, key):
    location = shelf(str(tmp_path / "b"), 3)
    bundle_tree.store_tree(location, [provider])
    location.delete(key)
    (finding,) = bundle_tree.check(location, [provider.public], deep=False)
    assert (finding.key, finding.what) == (key, "is missing, though another file of the tree is there")


def test_neither_the_id_of_a_key_nor_a_signature_alone_makes_a_signer(provider, customer):
    plain = Checkpoint("b", 3, bytes(32), "ab" * 32)
    ((key, signature),) = plain.signed(provider).notes
    ((other, _),) = plain.signed(customer).notes
    known = [provider.public, customer.public]
    assert plain.signed(provider).signers(known) == [provider.public]
    for note in ((key, bytes(64)), (other, signature), (key, signature[:-1] + bytes([signature[-1] ^ 1]))):
        forged = Checkpoint("b", 3, bytes(32), "ab" * 32, [note])
        assert (forged.signers(known), forged.unknown(known)) == ([], True)
