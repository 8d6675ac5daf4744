/* CSV as COPY prints it (CopyAttributeOutCSV in src/backend/commands/copyto.c of PostgreSQL): a comma between fields, a
 * newline behind each row. A field with a comma, a quote, a newline or a carriage return stands in quotes, and each
 * quote in it is doubled. Blocks are looked at 64 bytes at a time, a bit for each byte. */

#include "lines.h"

#include <stdlib.h>

#include "sixteen.h"
#include "xxh3.h"

enum { CHUNK_BYTES = 64 };

/* The bytes of a chunk that equal one, as bits; the first byte is the lowest bit. */
static inline uint64_t equal_bits(const unsigned char *chunk, unsigned char byte) {
    uint64_t bits = 0;
    for (int i = 0; i < 4; i++) bits |= (uint64_t)highest_bits(equal(sixteen_at(chunk + 16 * i), byte)) << 16 * i;
    return bits;
}

/* Bit i of the result is the parity of bits 0..i: set from an odd quote to the byte before the next one. */
static inline uint64_t parity_up_to(uint64_t bits) {
    for (int step = 1; step < 64; step <<= 1) bits ^= bits << step;
    return bits;
}

/* What is carried from one chunk to the next. */
typedef struct {
    uint64_t inside;       /* all bits set: the chunk begins inside quotes */
    uint64_t after_border; /* 1: the byte before may stand before an opening quote */
    uint64_t after_close;  /* 1: the byte before closed a quoted field, or was the first of two quotes */
} Carry;

/* Returns whether quotes stand only where the server puts them: at both ends of a field, and doubled within. */
static inline bool quotes_are_regular(uint64_t quotes, uint64_t inside, uint64_t borders, Carry *carry) {
    uint64_t opening = quotes & inside, closing = quotes & ~inside;
    uint64_t may_open = (borders | closing) << 1 | carry->after_border;
    uint64_t must_end = closing << 1 | carry->after_close;
    carry->after_border = (borders | closing) >> 63;
    carry->after_close = closing >> 63;
    return !(opening & ~may_open) && !(must_end & ~(borders | quotes));
}

Result cut_lines(void *block, size_t size, size_t columns, Fields *fields) {
    const unsigned char *text = block;
    unsigned char padded[CHUNK_BYTES] = {0}; /* what is left behind whole chunks */
    Carry carry = {0, 1, 0};
    size_t count = 1, line_start = 0;
    *fields = (Fields){.text = text, .columns = columns, .stride = 1, .separator = 1};
    if (size > MOST_BLOCK_BYTES) return REFUSED;
    if (!(fields->bounds = malloc((size + 2) * sizeof *fields->bounds))) return NO_MEMORY;
    fields->bounds[0] = 0;
    for (size_t position = 0; position < size; position += CHUNK_BYTES) {
        const unsigned char *chunk = text + position;
        if (size - position < CHUNK_BYTES) chunk = memcpy(padded, chunk, size - position);
        uint64_t quotes = equal_bits(chunk, '"');
        uint64_t newlines = equal_bits(chunk, '\n'), borders = equal_bits(chunk, ',') | newlines;
        uint64_t returns = equal_bits(chunk, '\r');
        if (quotes | carry.inside | carry.after_close) {
            uint64_t inside = parity_up_to(quotes) ^ carry.inside;
            newlines &= ~inside;
            borders &= ~inside;
            returns &= ~inside;
            fields->has_quotes = true;
            if (!quotes_are_regular(quotes, inside, borders, &carry)) return REFUSED;
            carry.inside = 0 - (inside >> 63);
        } else {
            carry.after_border = borders >> 63;
        }
        if (returns) return REFUSED;
        for (uint64_t left = columns ? borders : newlines; left; left &= left - 1) {
            int bit = __builtin_ctzll(left);
            size_t end = position + (size_t)bit;
            fields->bounds[count] = (uint32_t)end + 1;
            count += columns > 0;
            if (!(newlines >> bit & 1)) continue;
            if (count - 1 != ++fields->rows * columns) return REFUSED;
            fields->digest += xxh3_128(text + line_start, end - line_start);
            line_start = end + 1;
        }
    }
    return line_start == size && (size || !columns) ? TAKEN : REFUSED;
}
