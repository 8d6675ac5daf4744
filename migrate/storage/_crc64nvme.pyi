from typing_extensions import Buffer

# The CRC64NVME of the data, going on from a previous one.
def crc64nvme(data: Buffer, previous: int = 0, /) -> int: ...

# That of two pieces of data, from the CRC64NVME of each, and the size of the second in bytes.
def combine_crc64nvme(first: int, second: int, second_size_bytes: int, /) -> int: ...
