#include "packets.h"

#include <stdlib.h>

#include "xxh3.h"

enum { HEAD_BYTES = 4 }; /* a length, little-endian, and a counter */
enum { ERROR_MARK = 0xFF, EOF_MARK = 0xFE, EOF_BYTES = 9 };

static inline size_t number_at(const unsigned char *text, size_t width) {
    size_t number = 0;
    while (width-- > 0) number = number << 8 | text[width];
    return number;
}

/* Find the payload of the packet at a position, and move behind it. False: it is not whole. */
static inline bool next_payload(const unsigned char *text, size_t size, size_t *position, Field *payload) {
    if (size - *position < HEAD_BYTES) return false;
    *payload = (Field){text + *position + HEAD_BYTES, number_at(text + *position, HEAD_BYTES - 1)};
    if (payload->size > size - *position - HEAD_BYTES) return false;
    *position += HEAD_BYTES + payload->size;
    return true;
}

/* A row that begins like an EOF has a value of 16 MiB. */
static inline bool is_end(Field payload) {
    return payload.size && (payload.text[0] == ERROR_MARK || (payload.text[0] == EOF_MARK && payload.size < EOF_BYTES));
}

size_t packets_at(const unsigned char *text, size_t size, size_t most_bytes) {
    Field payload;
    size_t end = 0;
    for (size_t position = 0; next_payload(text, size, &position, &payload); end = position)
        if (payload.size > most_bytes || is_end(payload)) break;
    return end;
}

/* Find the value at a position, a length-encoded string, and move behind it. False: it is none, or not whole. */
static inline bool next_value(const unsigned char *text, size_t end, size_t *position, uint32_t *bounds) {
    enum { TWO_BYTES = 0xFC, THREE_BYTES = 0xFD, EIGHT_BYTES = 0xFE };
    if (*position == end) return false;
    size_t size = text[(*position)++];
    if (size >= NULL_MARK) {
        size_t width = size == TWO_BYTES ? 2 : size == THREE_BYTES ? 3 : size == EIGHT_BYTES ? 8 : 0;
        if (width > end - *position || (!width && size != NULL_MARK)) return false;
        size = number_at(text + *position, width);
        *position += width;
    }
    if (size > end - *position) return false;
    bounds[0] = (uint32_t)*position;
    *position += size;
    bounds[1] = (uint32_t)*position;
    return true;
}

Result cut_packets(void *block, size_t size, size_t columns, Fields *fields) {
    const unsigned char *text = block;
    Field payload;
    size_t position = 0;
    *fields = (Fields){.text = text, .columns = columns, .stride = 2};
    if (size > MOST_BLOCK_BYTES) return REFUSED;
    while (next_payload(text, size, &position, &payload)) fields->rows++;
    if (position != size || (columns && fields->rows > size / columns)) return REFUSED; /* a value has a byte at least */
    if (!(fields->bounds = malloc((fields->rows * columns + 1) * 2 * sizeof *fields->bounds))) return NO_MEMORY;
    uint32_t *bounds = fields->bounds;
    for (position = 0; next_payload(text, size, &position, &payload);) {
        size_t at = (size_t)(payload.text - text);
        fields->digest += xxh3_128(payload.text, payload.size);
        for (size_t column = 0; column < columns; column++, bounds += 2)
            if (!next_value(text, position, &at, bounds)) return REFUSED;
        if (at != position && columns) return REFUSED;
    }
    return fields->rows || !columns ? TAKEN : REFUSED;
}
