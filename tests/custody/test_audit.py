"""Audits: as many samples as the question takes, drawn by a seed that nobody knew; damage among them is found."""

import io
import re
import shutil
from hashlib import sha256

import pyarrow.parquet as pq
import pytest

from migrate.bundle import layout
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.custody import documents, sampling_audit
from migrate.custody.log import custody_log
from migrate.custody.sampling_audit import Question, Seed, draw
from migrate.custody.signing.allowed_signers import ListedKey, Trust
from migrate.custody.signing.bundle_signatures import root_of, sign_bundle
from migrate.custody.tree.bundle_tree import store_tree
from migrate.errors import UsageError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.cli.conftest import call, make_file
from tests.tools.clients import boto_client

ROOT = "ab" * 32


def test_the_number_of_samples_is_that_of_the_question():
    assert Question(0.99, 0.001).samples == 4603
    assert Question(0.95, 0.01).samples == 299
    for wrong in (Question(1, 0.1), Question(0.9, 0), Question(2, 0.1), Question(0.99, 1e-320)):
        with pytest.raises(UsageError):
            _ = wrong.samples


def test_a_draw_is_the_same_again_for_the_same_seed_and_spread_over_all():
    drawn = draw(b"s" * 32, ROOT, 10**6, 4603)
    assert drawn == draw(b"s" * 32, ROOT, 10**6, 4603)
    assert drawn != draw(b"t" * 32, ROOT, 10**6, 4603)
    assert drawn != draw(b"s" * 32, "cd" * 32, 10**6, 4603)
    tenths = [sum(number // 10**5 == tenth for number in drawn) for tenth in range(10)]
    assert min(tenths) > 350
    assert draw(b"s" * 32, ROOT, 7, 100) == list(range(7))


@pytest.fixture(scope="module")
def made(minio, make_bucket, tmp_path_factory, make_key):
    """A real bundle: a pack, and one large object."""
    bucket, path = make_bucket(minio), tmp_path_factory.mktemp("audit") / "bundle"
    client = boto_client(minio.profile)
    for number in range(60):
        client.put_object(Bucket=bucket, Key=f"p/{number:02d}", Body=b"%d" % number * 99)
    client.put_object(Bucket=bucket, Key="large", Body=bytes(9 * 2**20))
    location = open_location(str(path))
    with open_sources({"media": Endpoint(f"s3://{bucket}?profile={minio.profile}")}) as opened:
        assert export(opened, location, workers=2, progress=Silent()).complete
    sign_bundle(location, make_key("provider"))
    store_tree(location, [make_key("provider")])
    return path


@pytest.fixture
def bundle(made, tmp_path):
    """A copy of it to be changed."""
    shutil.copytree(made, tmp_path / "bundle")
    return open_location(str(tmp_path / "bundle"))


def look(location, provider, question, trust=None):
    seed = Seed(b"s" * 32)
    return sampling_audit.audit(location, question, provider, trust, seed=seed, workers=2, progress=Silent())


def test_all_is_whole_and_the_result_is_signed(bundle, provider):
    done = look(bundle, provider, Question(0.99, 0.1))
    assert (done.document.value["items"], done.document.value["samples"], done.findings) == (61, 44, [])
    assert "less than 0.1" in done.document.about
    (kept,), findings = documents.read_all(bundle, "audit")
    assert (kept.value["seed"], kept.signers, findings) == ((b"s" * 32).hex(), [provider.public], [])
    assert custody_log.read(bundle).entries[-1].what.event == "audited"
    assert (
        look(bundle, provider, Question(0.999999, 0.001)).document.about
        == "Audit of all 61 items: each is whole"
    )


def test_a_damaged_object_is_found_when_it_is_drawn(bundle, provider):
    key = "data/media/packs/pack-000000.tar"
    data = bundle.read(key)
    at = data.index(b"77" * 20)
    bundle.put(key, data[:at] + b"x" + data[at + 1 :])
    done = look(bundle, provider, Question(0.999999, 0.001))
    assert ["'p/07'" in one.key or "'p/7" in one.key for one in done.findings] == [True]
    assert done.document.about.startswith("AUDIT WITH 1 FINDING in")
    bundle.delete(key)
    assert len(look(bundle, provider, Question(0.999999, 0.001)).findings) == 60


def test_an_index_that_was_changed_is_found_by_the_signed_root(bundle, provider):
    """Whoever drops an item from the index as well does not get away with it."""
    key = "data/media/index/objects-000000.parquet"
    table = pq.read_table(io.BytesIO(bundle.read(key)))
    out = io.BytesIO()
    pq.write_table(table.slice(1), out)
    bundle.put(key, out.getvalue())
    size = len(bundle.read(key))
    files = bundle.read(layout.FILES).splitlines(keepends=True)
    at = next(number for number, line in enumerate(files) if key.encode() in line)
    files[at] = re.sub(rb'"size_bytes":[0-9]+', b'"size_bytes":%d' % size, files[at])
    bundle.put(layout.FILES, b"".join(files))
    tags = bundle.read(layout.TAG_MANIFEST).decode()
    old = next(line for line in tags.splitlines() if line.endswith(layout.FILES))
    bundle.put(layout.TAG_MANIFEST, tags.replace(old[:64], sha256(b"".join(files)).hexdigest()).encode())
    problems = {one.key: one.what for one in look(bundle, provider, Question(0.9, 0.1)).findings}
    assert problems[layout.CHECKPOINT] == "is of another seal of the bundle"
    assert f"sig/{layout.TAG_MANIFEST}.{provider.public.id}.sig" in problems


def test_a_bundle_that_somebody_else_sealed_again_is_not_ours(bundle, provider, customer):
    """Without the old signatures and tree everything agrees; only that nobody we know signed it tells."""
    for info in list(bundle.list("sig/")):
        bundle.delete(info.key)
    sign_bundle(bundle, customer)
    store_tree(bundle, [customer])
    trust = Trust({provider.public: [ListedKey("host")]}, "the list")
    done = look(bundle, provider, Question(0.9, 0.1), trust)
    assert [str(one) for one in done.findings] == ["tagmanifest-sha256.txt: is signed by nobody in the list"]
    assert (
        look(
            bundle, provider, Question(0.9, 0.1), Trust({customer.public: [ListedKey("acme")]}, "x")
        ).findings
        == []
    )


def test_the_command(bundle, make_key, tmp_path):
    location, key = bundle.location.removeprefix("file://"), make_key.path_of("provider")
    assert call("sign", location, "--key", key).code == 0
    done = call("audit", location, "--key", key, "--confidence", "0.9", "--loss", "0.1", "--json")
    assert (done.code, done.json["result"]["samples"]) == (0, 22), done.err
    assert "drawn after the root was signed" in done.out
    again = call(
        "audit",
        location,
        "--key",
        key,
        "--seed",
        done.json["result"]["seed"],
        "--confidence",
        "0.9",
        "--loss",
        "0.1",
    )
    assert (again.code, "by a seed that was named" in again.out) == (0, True)
    stranger = tmp_path / "allowed"
    stranger.write_text(f"acme {make_key('customer').public.line}\n")
    assert call("audit", location, "--key", key, "--signers", stranger).code == 6
    assert call("audit", location, "--key", key, "--seed", "12").code == 2


def test_parts_of_tables_are_items_of_their_source(provider, tmp_path):
    """Of each of several sources, in their order."""
    for name in "ab":
        make_file(tmp_path / f"{name}.db", 100)
    sources = [f"{name}=sqlite://{tmp_path}/{name}.db" for name in "ab"]
    assert call("export", *sources, "--to", tmp_path / "bundle").code == 0
    location = open_location(str(tmp_path / "bundle"))
    sign_bundle(location, provider)
    store_tree(location, [provider])
    all_items = Question(0.999999, 0.001)
    done = look(location, provider, all_items)
    assert (done.document.value["items"], done.document.value["known"], done.findings) == (2, 0, [])
    (part,) = [info.key for info in location.list("data/b/tables/") if info.key.endswith(".parquet")]
    data = location.read(part)
    location.put(part, data[:-1] + bytes([data[-1] ^ 1]))
    assert [(one.key, one.what) for one in look(location, provider, all_items).findings] == [
        (part, "has other bytes")
    ]
    for number, damaged in ((0, []), (1, [part])):  # of two items one is drawn
        root = root_of(location)
        seed = next(
            bytes([byte]) * 32 for byte in range(256) if draw(bytes([byte]) * 32, root, 2, 1) == [number]
        )
        done = sampling_audit.audit(
            location, Question(0.5, 0.5), provider, None, seed=Seed(seed), workers=1, progress=Silent()
        )
        assert [one.key for one in done.findings] == damaged
