"""Packs are tars that any tar reads."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.objects import pax_headers

NAMES = ("a", "d/b.txt", "x" * 100, "x" * 101, "long/" * 60 + "end", "ünï/çödé 日本", "emoji-😀", "..x", " ")


def archive(members: list[tuple[str, bytes]]) -> bytes:
    pieces = []
    for name, body in members:
        pieces += [pax_headers.header(name, len(body), 1_700_000_000), body, pax_headers.padding(len(body))]
    return b"".join([*pieces, pax_headers.END])


def test_python_reads_what_was_written() -> None:
    members = [(name, name.encode() * 100) for name in NAMES]
    with tarfile.open(fileobj=io.BytesIO(archive(members))) as read:
        found = [(one.name, read.extractfile(one).read()) for one in read.getmembers()]
        assert {(one.uid, one.gid, one.mode, one.mtime) for one in read.getmembers()} == {
            (0, 0, 0o644, 1_700_000_000)
        }
    assert found == members


def test_gnu_tar_reads_what_was_written() -> None:
    members = [(name, b"x") for name in NAMES]
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", "-"],
        input=archive(members),
        capture_output=True,
        check=True,
    )
    assert listed.stdout.decode().splitlines() == list(NAMES)
    assert listed.stderr == b""


@settings(max_examples=20)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=300), st.binary(max_size=2000)), max_size=8))
def test_any_key_has_a_member_with_its_bytes(objects: list[tuple[str, bytes]]) -> None:
    members = [(pax_headers.member_name(key), body) for key, body in objects]
    with tarfile.open(fileobj=io.BytesIO(archive(members))) as read:
        assert [(one.name, read.extractfile(one).read()) for one in read.getmembers()] == members


@pytest.mark.parametrize(
    "key",
    ["/lead", "../up", "a/../b", "a//b", "dir/", "./x", "a/.", "n\nl", "", "w" * 256, "_keys/x", "\x7f"],
)
def test_keys_that_are_no_safe_file_names_are_not_used_as_such(key: str) -> None:
    assert pax_headers.member_name(key).startswith("_keys/")
    assert pax_headers.member_name(key) != pax_headers.member_name(key + "x")
