"""Bytes that take all of their room."""

import zlib

import pytest

from migrate.storage.incompressible import pieces

PAGE_BYTES = 4096


@pytest.mark.parametrize("size_bytes", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_there_are_as_many_as_were_asked_for(size_bytes):
    assert sum(map(len, pieces(size_bytes))) == size_bytes


def test_neither_compression_nor_equal_pages_make_them_fewer():
    data = b"".join(pieces(4 * 2**20))
    assert len(zlib.compress(data)) > len(data)
    assert len(
        {data[start : start + PAGE_BYTES] for start in range(0, len(data), PAGE_BYTES)}
    ) * PAGE_BYTES == len(data)
