"""Values of hundreds of megabytes, which are never whole in memory: read in pieces, and spliced into Parquet.

pyarrow writes and reads a value only whole, several times over: 400 MiB would take some GiB. So a row with such values
is spooled to a temporary file in compressed pieces (``long_values``). pyarrow writes the row with an empty value in
place of each long one, and ``parquet_splice`` puts the pieces there. For that the page headers and the footer have to
be rewritten (``parquet_footer``). They are structures of Thrift's compact protocol, and pyarrow neither reads nor
writes single ones.

Row groups that are larger than the memory for their rows are put together in the same way, from small files.
"""
