"""The digest of rows is the plain sum that docs/FORMAT.md says, however it is computed."""

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from exporters.row_digest import MODULUS, RowsDigest, digest_texts


@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(1, 50))
def test_a_tally_is_the_sum_of_the_hashes_of_the_texts(texts, times):
    many = texts * times
    assert digest_texts(many) == RowsDigest(len(many), sum(map(xxh3_128_intdigest, many)) % MODULUS)
