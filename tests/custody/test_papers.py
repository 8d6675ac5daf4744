"""Receipt, certificate and grant as pages to print: parties, root, times by whose clock, and what was not verified."""

import json
from datetime import UTC, datetime
from pathlib import Path

from migrate.cli.common.papers import grant_paper, paper_page
from tests.cli.conftest import call
from tests.tools.pages import assert_harmless, parse


def test_a_receipt_and_a_certificate_say_what_they_prove_and_what_not(location, make_key, tmp_path):
    key = make_key.path_of("acme")
    words = [location.location, "--key", key, "--json"]
    received = call("receive", *words, "--page", tmp_path / "receipt.html")
    assert received.code == 0, received.err
    paper = parse((tmp_path / "receipt.html").read_bytes())
    assert_harmless(paper)
    root = received.json["result"]["root"]
    for text in ("Received and signed by", root, "RFC 3161", "BypassGovernanceRetention", "UTC", "--against"):
        assert text in paper.text

    listed = {name: make_key.path_of(name) for name in ("acme", "host")}
    lines = [f"{name}-by-list {path.with_suffix('.pub').read_text()}" for name, path in listed.items()]
    (tmp_path / "signers").write_text("".join(lines))
    (file,) = (Path(location.location.removeprefix("file://")) / "sig").glob("receipt-*.json")
    words_of_host = [location.location, file, "--key", listed["host"], "--signers", tmp_path / "signers"]
    acknowledged = call("acknowledge", *words_of_host, "--page", tmp_path / "acknowledged.html")
    assert acknowledged.code == 0, acknowledged.err
    paper = parse((tmp_path / "acknowledged.html").read_bytes())
    for text in ("acme-by-list, key SHA256:", "host-by-list, key SHA256:"):
        assert text in paper.text

    erased = call(
        "erase", *words, "--yes", "--override", "asked for", "--page", tmp_path / "certificate.html"
    )
    assert erased.code == 0, erased.err
    paper = parse((tmp_path / "certificate.html").read_bytes())
    assert_harmless(paper)
    for text in (
        "Erased and certified by",
        root,
        "Backups, snapshots and replicas",
        "BypassGovernanceRetention",
    ):
        assert text in paper.text
    document = paper.text.partition("its text is:")[2]
    assert json.loads(document)["root"] == root


def test_a_grant_names_both_parties_and_keeps_the_secret(provider):
    until = datetime(2030, 1, 31, 12, tzinfo=UTC)
    page = paper_page(
        grant_paper("s3://held/acme", "<acme>", [("Access key", "AKEY")], until, provider.public)
    )
    paper = parse(page)
    assert_harmless(paper)
    for text in (
        "Granted by",
        provider.public.fingerprint,
        "<acme>",
        "2030-01-31 12:00:00 UTC",
        "the storage server",
    ):
        assert text in paper.text
