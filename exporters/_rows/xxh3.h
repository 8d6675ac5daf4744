/* XXH3-128 with seed 0: the hash of a row's text (docs/FORMAT.md, "Digest"). */
#pragma once

#include <stddef.h>

/* The hash as one number: its high 64 bits are the "high half" of the specification. */
unsigned __int128 xxh3_128(const unsigned char *text, size_t size);
