/* Sixteen bytes at a time (GCC documentation, "Vector Extensions"). */
#pragma once

#include <stdint.h>
#include <string.h>

typedef unsigned char Sixteen __attribute__((vector_size(16)));

static inline Sixteen sixteen_at(const unsigned char *text) {
    Sixteen bytes;
    memcpy(&bytes, text, sizeof bytes);
    return bytes;
}

/* 0xFF for each byte that equals one, zero for the others. */
static inline Sixteen equal(Sixteen bytes, unsigned char byte) { return (Sixteen)(bytes == (Sixteen){0} + byte); }

/* The highest bits; the lowest one is that of the first byte. */
static inline unsigned highest_bits(Sixteen bytes) {
#if defined(__SSE2__)
    typedef char Signed __attribute__((vector_size(16)));
    return (unsigned)__builtin_ia32_pmovmskb128((Signed)bytes);
#else
    uint64_t halves[2];
    memcpy(halves, &bytes, sizeof bytes);
    for (int i = 0; i < 2; i++) halves[i] = (halves[i] >> 7 & 0x0101010101010101) * 0x0102040810204080 >> 56;
    return (unsigned)(halves[1] << 8 | halves[0]);
#endif
}
