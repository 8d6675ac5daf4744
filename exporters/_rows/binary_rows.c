#include "binary_rows.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 4, UUID_BYTES = 16, DECIMAL_BYTES = sizeof(__int128), DECIMAL_HEAD_BYTES = 8, JSONB_FORMAT = 1 };
enum { BASE = 10000, DIGITS_OF_BASE = 4, MOST_SCALE = 38 };

/* Write a number of so many bytes, the most significant first; return the end. */
static inline unsigned char *put(unsigned char *to, uint64_t number, size_t width) {
    number = __builtin_bswap64(number << (64 - 8 * width));
    memcpy(to, &number, width);
    return to + width;
}

/* Write a number of a column, behind its length. */
static inline unsigned char *put_number(unsigned char *to, const ArrowColumn *column, size_t place, size_t width) {
    uint64_t number = 0;
    memcpy(&number, column->buffers[VALUES].text + place * width, width);
    return put(put(to, width, LENGTH_BYTES), number - (uint64_t)column->parameter, width);
}

static inline bool bit_at(Field bits, size_t place) { return bits.text[place / 8] >> place % 8 & 1; }

static inline bool is_valid(const ArrowColumn *column, size_t place) {
    return !column->buffers[VALIDITY].text || bit_at(column->buffers[VALIDITY], place);
}

static inline int32_t text_start(const ArrowColumn *column, size_t place) {
    int32_t start;
    memcpy(&start, column->buffers[OFFSETS].text + place * sizeof start, sizeof start);
    return start;
}

/* A decimal of up to 15 digits without its sign, as a number of whole digits of 10,000. */
static inline uint64_t magnitude_at(const ArrowColumn *column, size_t place, bool *is_negative) {
    uint64_t number, fill = 1;
    memcpy(&number, column->buffers[VALUES].text + place * DECIMAL_BYTES, sizeof number);
    for (int64_t scale = column->parameter; scale % DIGITS_OF_BASE; scale++) fill *= 10;
    *is_negative = number >> 63;
    return (*is_negative ? 0 - number : number) * fill;
}

/* As many digits for all rows: the server drops zeros in front and behind. */
static unsigned digits_of(const ArrowColumn *column, size_t row_count) {
    uint64_t largest = 0;
    for (size_t place = column->offset; place < column->offset + row_count; place++) {
        bool is_negative;
        uint64_t magnitude = is_valid(column, place) ? magnitude_at(column, place, &is_negative) : 0;
        if (magnitude > largest) largest = magnitude;
    }
    return largest < 10000 ? 1 : largest < 100000000 ? 2 : largest < 10000000000000000 ? 4 : 8;
}

static inline unsigned char *put_decimal(unsigned char *to, const ArrowColumn *column, size_t place) {
    bool is_negative;
    uint64_t magnitude = magnitude_at(column, place, &is_negative), scale = (uint64_t)column->parameter;
    unsigned digits = column->digits;
    to = put(to, DECIMAL_HEAD_BYTES + 2 * digits, LENGTH_BYTES);
    to = put(put(to, digits, 2), digits - (scale + DIGITS_OF_BASE - 1) / DIGITS_OF_BASE - 1, 2);
    to = put(put(to, is_negative ? 0x4000 : 0, 2), scale, 2);
    for (unsigned i = digits; i-- > 0; magnitude /= BASE) put(to + 2 * i, magnitude % BASE, 2);
    return to + 2 * digits;
}

static inline unsigned char *put_field(unsigned char *to, const ArrowColumn *column, size_t place) {
    if (!is_valid(column, place)) return put(to, UINT32_MAX, LENGTH_BYTES);
    size_t start = place * UUID_BYTES, size = UUID_BYTES;
    switch (column->letter) {
        case 'b': return put(put(to, 1, LENGTH_BYTES), bit_at(column->buffers[VALUES], place), 1);
        case 'h': return put_number(to, column, place, sizeof(int16_t));
        case 'i': return put_number(to, column, place, sizeof(int32_t));
        case 'l': return put_number(to, column, place, sizeof(int64_t));
        case 'd': return put_decimal(to, column, place);
        case 'U': break;
        default:
            start = (size_t)text_start(column, place);
            size = (size_t)text_start(column, place + 1) - start;
    }
    bool has_format = column->letter == 'j';
    to = put(to, size + has_format, LENGTH_BYTES);
    if (has_format) *to++ = JSONB_FORMAT;
    memcpy(to, column->buffers[VALUES].text + start, size);
    return to + size;
}

/* Whether offsets do not fall and stay within the values; the bytes of these. */
static bool has_texts(const ArrowColumn *column, size_t end, size_t *size) {
    if (column->buffers[OFFSETS].size / sizeof(int32_t) <= end || text_start(column, column->offset) < 0) return false;
    for (size_t place = column->offset; place < end; place++)
        if (text_start(column, place) > text_start(column, place + 1)) return false;
    *size = (size_t)(text_start(column, end) - text_start(column, column->offset));
    return (size_t)text_start(column, end) <= column->buffers[VALUES].size;
}

/* Find the most bytes that the rows of a column take. False: its buffers have not so many. */
static bool measure(ArrowColumn *column, size_t row_count, size_t *size) {
    static const char letters[] = "bhilUd";
    static const unsigned char widths[] = {0, sizeof(int16_t), sizeof(int32_t), sizeof(int64_t), UUID_BYTES, DECIMAL_BYTES};
    size_t end = column->offset + row_count, bitmap_bytes = (end + 7) / 8;
    if (end > INT32_MAX || !column->letter) return false;
    if (column->buffers[VALIDITY].text && column->buffers[VALIDITY].size < bitmap_bytes) return false;
    const char *letter = strchr(letters, column->letter);
    if (!letter) return strchr("tj", column->letter) && has_texts(column, end, size);
    size_t width = widths[letter - letters];
    if (column->buffers[VALUES].size < (width ? end * width : bitmap_bytes)) return false;
    *size = row_count * (width + 1 + DECIMAL_HEAD_BYTES);
    if (*letter != 'd') return true;
    if (column->parameter < 0 || column->parameter > MOST_SCALE) return false;
    column->digits = digits_of(column, row_count);
    return true;
}

Result write_rows(ArrowColumn *columns, size_t count, size_t row_count, Bytes *rows) {
    size_t capacity = 1, size = 0;
    if (!count || count > INT16_MAX || row_count > INT32_MAX) return REFUSED;
    for (size_t i = 0; i < count; i++, capacity += size + row_count * (LENGTH_BYTES + 1))
        if (columns[i].offset > INT32_MAX || !measure(&columns[i], row_count, &size)) return REFUSED;
    if (!(rows->data = malloc(capacity + row_count * 2))) return NO_MEMORY;
    unsigned char *to = rows->data;
    for (size_t row = 0; row < row_count; row++) {
        to = put(to, count, 2);
        for (size_t i = 0; i < count; i++) to = put_field(to, &columns[i], columns[i].offset + row);
    }
    rows->size = (size_t)(to - rows->data);
    return TAKEN;
}
