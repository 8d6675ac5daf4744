"""CRC64NVME by our own module and by awscrt, which has it from AWS."""

import random

import pytest
from awscrt import checksums as awscrt

from migrate.storage import checksums
from migrate.storage.checksums import combine, crc64nvme

_MODULE = "migrate.storage._crc64nvme"
OWN = checksums.library().__name__ == _MODULE
with_seeds = pytest.mark.parametrize("seeds", [[1], pytest.param(range(2, 200), marks=pytest.mark.torture)])
only_own = pytest.mark.skipif(
    not OWN, reason="not built here: there is no compiler, or the processor cannot run it"
)


def test_the_check_value_of_the_specification():
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888
    assert crc64nvme(b"") == 0


@only_own
@with_seeds
def test_any_data_at_any_address_in_any_pieces(seeds):
    for seed in seeds:
        numbers = random.Random(seed)
        data = memoryview(numbers.randbytes(1 << 20))
        sizes = [
            *range(70),
            *(power + numbers.randint(-17, 17) for power in (128, 256, 512, 1024, 4096, 1 << 18)),
        ]
        for size in sizes:
            start, previous = numbers.randrange(64), numbers.getrandbits(64)
            piece, cut = data[start : start + size], numbers.randint(0, size)
            crc = awscrt.crc64nvme(piece, previous)
            assert crc64nvme(piece, previous) == crc, (size, start)
            assert crc64nvme(piece[cut:], crc64nvme(piece[:cut], previous)) == crc, (size, start, cut)
            parts = [(crc64nvme(piece[:cut]), cut), (crc64nvme(piece[cut:]), size - cut)]
            assert combine(parts) == awscrt.crc64nvme(piece), (size, start, cut)


@only_own
@with_seeds
def test_parts_of_any_size_are_combined(seeds):
    for seed in seeds:
        numbers = random.Random(seed)
        for bits in range(1, 60):
            first, second, size = (
                numbers.getrandbits(64),
                numbers.getrandbits(64),
                1 + numbers.getrandbits(bits),
            )
            assert combine([(first, 0), (second, size)]) == awscrt.combine_crc64nvme(first, second, size), (
                size
            )
