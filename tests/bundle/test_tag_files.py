"""BagIt's own files: read as they were written, and refused with the line that is wrong."""

from __future__ import annotations

import pytest

from migrate.bundle import tag_files
from migrate.bundle.commit_records import FileRecord
from migrate.bundle.tag_files import MAX_LINE_BYTES, ManifestEntry
from migrate.errors import DamageError, UsageError
from migrate.storage.local.store import LocalStore

DIGEST = "0" * 64


def test_a_manifest_is_read_as_it_was_written_and_as_sha256sum_writes_binary_files():
    lines = [tag_files.manifest_line("a", DIGEST), f"{DIGEST} *b b\n".encode()]
    assert list(tag_files.parse_manifest(lines, "manifest", lambda _: True)) == [
        ManifestEntry("a", DIGEST),
        ManifestEntry("b b", DIGEST),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (f"{DIGEST}  ", "a SHA-256, two spaces, a name"),
        (f"{DIGEST[1:]}  c", "a SHA-256, two spaces, a name"),
        ("\udcff", "a SHA-256, two spaces, a name"),
        (f"{DIGEST}  bad", "a name of a bundle's file"),
        (f"{DIGEST}  b", "the same name twice"),
        (f"{DIGEST}  a", "'a' after 'b'"),
    ],
)
def test_the_line_that_is_wrong_is_named(line, what):
    lines = [f"{DIGEST}  b\n".encode(), f"{line}\n".encode("utf-8", "surrogateescape")]
    with pytest.raises(DamageError, match=rf"manifest line 2.*{what}"):
        list(tag_files.parse_manifest(lines, "manifest", lambda key: key != "bad"))


def test_the_list_of_files_is_read_as_it_was_written():
    files = [FileRecord("data/a", 3, DIGEST, 15), FileRecord("data/b", 0, DIGEST, 2**64 - 1)]
    lines = [tag_files.files_line(file) for file in files]
    assert list(tag_files.parse_files(lines)) == files
    with pytest.raises(DamageError, match=r"files\.jsonl line 3"):
        list(tag_files.parse_files([*lines, lines[0].replace(b'"size_bytes":3', b'"size_bytes":null')]))


@pytest.mark.parametrize(
    ("version", "error"), [("1.1", UsageError), ("2.0", UsageError), ("0.97", DamageError)]
)
def test_another_version_of_bagit_is_refused_and_an_older_one_is_none_of_ours(version, error):
    tag_files.check_declaration(tag_files.DECLARATION)
    with pytest.raises(error):
        tag_files.check_declaration(tag_files.DECLARATION.replace(b"1.0", version.encode()))


def test_a_bag_info_is_read_as_it_was_written_a_value_a_line():
    labels = {"Source": "a: b\nc  d", "Payload-Oxum": "12.3"}
    assert tag_files.parse_bag_info(tag_files.bag_info(labels)) == {**labels, "Source": "a: b c d"}


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"a: 1\nb 2\n", "line 2"), (b"a: 1\na: 2\n", "line 2"), (b"a: \xff\n", "byte 3 is not")],
)
def test_a_bag_info_of_something_else_is_damage(data, what):
    with pytest.raises(DamageError, match=what):
        tag_files.parse_bag_info(data)


@pytest.mark.parametrize("value", ["", "1", "1.", ".1", "1.2.3", "-1.2", "1.2 ", "1" * 21 + ".1"])
def test_an_oxum_is_two_numbers(value):
    assert tag_files.parse_oxum("12.3") == (12, 3)
    with pytest.raises(DamageError, match="Payload-Oxum"):
        tag_files.parse_oxum(value)


@pytest.mark.parametrize("size_bytes", [0, 1, 4, 5, 8, 9])
def test_a_file_is_read_in_pieces_to_its_end(tmp_path, monkeypatch, size_bytes):
    monkeypatch.setattr(tag_files, "CHUNK_BYTES", 4)
    store = LocalStore(tmp_path)
    store.put("a", bytes(range(size_bytes)))
    pieces = list(tag_files.chunks(store, "a"))
    assert b"".join(pieces) == bytes(range(size_bytes))
    assert all(len(piece) <= 4 for piece in pieces)


def test_pieces_are_cut_into_lines_wherever_they_end():
    text = b"one\n\ntwo\nthree\n"
    for size in range(1, len(text) + 1):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert list(tag_files.lines(pieces, "a")) == [b"one\n", b"\n", b"two\n", b"three\n"]


def test_a_line_may_be_as_long_as_that_and_no_longer():
    longest, longer = b"a" * MAX_LINE_BYTES, b"a" * (MAX_LINE_BYTES + 1)
    assert list(tag_files.lines([longest, b"\n"], "a")) == [longest + b"\n"]
    for pieces in ([longer + b"\n"], [longer, b"\n"], [longest, b"a", b"\n"]):
        with pytest.raises(DamageError, match="a longer one"):
            list(tag_files.lines(pieces, "a"))
    with pytest.raises(DamageError, match="a newline at the end"):
        list(tag_files.lines([b"one\ntwo"], "a"))
