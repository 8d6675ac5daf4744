#include "columns.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "values.h"

#define ALWAYS_INLINE __attribute__((always_inline))

enum { UUID_BYTES = 16 };

typedef enum { FILLED, OTHER_TEXT, NO_ROOM } FillResult;
/* OTHER_TEXT: a value is none of the kind. */

static bool allocate(Bytes *buffer, size_t size) {
    *buffer = (Bytes){calloc(size + !size, 1), size};
    return buffer->data != NULL;
}

void release_column(Column *column) {
    for (int i = 0; i < BUFFERS; i++) free(column->buffers[i].data);
    if (column->items) release_column(column->items);
    free(column->items);
    *column = (Column){0};
}

/* Note that a row is NULL. The validity bitmap is made with the first one. */
static bool set_null(Column *column, const Fields *fields, size_t row) {
    Bytes *validity = &column->buffers[VALIDITY];
    if (!validity->data) {
        if (!allocate(validity, (fields->rows + 7) / 8)) return false;
        memset(validity->data, 0xFF, validity->size);
    }
    validity->data[row / 8] &= (unsigned char)~(1u << row % 8);
    column->nulls++;
    return true;
}

static inline bool read_bool(Field field, size_t bit, unsigned char *place) {
    if (field.size != 1 || (field.text[0] != 't' && field.text[0] != 'f')) return false;
    *place |= (unsigned char)((field.text[0] == 't') << bit);
    return true;
}

static inline bool read_number(Field field, int64_t least, int64_t most, size_t width, unsigned char *place) {
    int64_t value;
    if (!read_integer(field, least, most, &value)) return false;
    memcpy(place, &value, width);
    return true;
}

/* Read the value of a row into its place among those of a column, which is aligned as its C type is. */
static inline ALWAYS_INLINE bool read_value(Field field, char letter, ColumnKind kind, size_t row, unsigned char *values) {
    int64_t *numbers = (int64_t *)(void *)values;
    switch (letter) {
        case 'b': return read_bool(field, row % 8, values + row / 8);
        case 'c': return read_number(field, INT8_MIN, INT8_MAX, 1, values + row);
        case 'B': return read_number(field, 0, UINT8_MAX, 1, values + row);
        case 'h': return read_number(field, INT16_MIN, INT16_MAX, 2, values + row * 2);
        case 'H': return read_number(field, 0, UINT16_MAX, 2, values + row * 2);
        case 'i': return read_number(field, INT32_MIN, INT32_MAX, 4, values + row * 4);
        case 'o': return read_number(field, 0, UINT32_MAX, 4, values + row * 4);
        case 'l': return read_integer(field, INT64_MIN, INT64_MAX, numbers + row);
        case 'f': return read_double(field, (double *)(void *)values + row);
        case 'd': return read_decimal(field, kind.precision, kind.scale, (__int128 *)(void *)values + row);
        case 'D': return read_date(field, (int32_t *)(void *)values + row);
        case 'T': return read_time(field, ANY_DIGITS, numbers + row);
        case 'K': return read_time(field, kind.scale, numbers + row);
        case 'S': return read_timestamp(field, ANY_DIGITS, false, numbers + row);
        case 'Y': return read_timestamp(field, kind.scale, false, numbers + row);
        case 'Z': return read_timestamp(field, ANY_DIGITS, true, numbers + row);
        default: return read_uuid(field, values + row * UUID_BYTES);
    }
}

/* The compiler makes a loop of its own for each letter, because it is a constant where this is called. */
static inline ALWAYS_INLINE FillResult fill_fixed(const Fields *fields, size_t number, char letter, ColumnKind kind,
                                                  size_t value_bits, Column *column) {
    if (!allocate(&column->buffers[VALUES], (fields->rows * value_bits + 7) / 8)) return NO_ROOM;
    unsigned char *values = column->buffers[VALUES].data;
    for (size_t row = 0; row < fields->rows; row++) {
        Field field = field_at(fields, row, number);
        if (is_null(fields, field)) {
            if (!set_null(column, fields, row)) return NO_ROOM;
        } else if (!read_value(field, letter, kind, row, values)) {
            return OTHER_TEXT;
        }
    }
    return FILLED;
}

/* Offsets, and room for values of up to as many bytes as the fields have. */
static bool allocate_text(const Fields *fields, size_t number, Column *column) {
    size_t size = 0;
    for (size_t row = 0; row < fields->rows; row++) size += field_at(fields, row, number).size;
    return allocate(&column->buffers[OFFSETS], (fields->rows + 1) * sizeof(int32_t)) &&
           allocate(&column->buffers[VALUES], size);
}

/* Copies the bytes of a value; returns the end of the copy, NULL where it is none of the kind. */
typedef unsigned char *(*CopyValue)(const Fields *fields, Field field, unsigned char *to);

/* Text without its quotes. */
static inline unsigned char *copy_text(const Fields *fields, Field field, unsigned char *to) {
    if (!fields->has_quotes || field.text[0] != '"') return (unsigned char *)memcpy(to, field.text, field.size) + field.size;
    const unsigned char *from = field.text + 1, *end = field.text + field.size - 1;
    while (from < end) {
        const unsigned char *quote = memchr(from, '"', (size_t)(end - from));
        size_t size = (size_t)((quote ? quote + 1 : end) - from);
        memcpy(to, from, size);
        to += size;
        from += size + (quote != NULL); /* the second of two quotes */
    }
    return to;
}

static inline unsigned char *copy_hex(const Fields *fields, Field field, unsigned char *to) {
    (void)fields;
    return read_hex(field, to) ? to + (field.size - 2) / 2 : NULL;
}

static inline ALWAYS_INLINE FillResult fill_variable(const Fields *fields, size_t number, CopyValue copy, Column *column) {
    if (!allocate_text(fields, number, column)) return NO_ROOM;
    int32_t *offsets = (int32_t *)(void *)column->buffers[OFFSETS].data;
    unsigned char *values = column->buffers[VALUES].data, *to = values;
    for (size_t row = 0; row < fields->rows; row++) {
        Field field = field_at(fields, row, number);
        if (is_null(fields, field)) {
            if (!set_null(column, fields, row)) return NO_ROOM;
        } else if (!(to = copy(fields, field, to))) {
            return OTHER_TEXT;
        }
        offsets[row + 1] = (int32_t)(to - values);
    }
    column->buffers[VALUES].size = (size_t)(to - values);
    return FILLED;
}

/* Whether each value of a column is UTF-8. */
static bool values_are_utf8(const Column *column, size_t rows) {
    const int32_t *offsets = (const int32_t *)(const void *)column->buffers[OFFSETS].data;
    const unsigned char *values = column->buffers[VALUES].data;
    unsigned char all = 0;
    for (size_t i = 0; i < column->buffers[VALUES].size; i++) all |= values[i];
    if (all < 0x80) return true;
    for (size_t row = 0; row < rows; row++)
        if (!is_utf8(values + offsets[row], (size_t)(offsets[row + 1] - offsets[row]))) return false;
    return true;
}

static FillResult fill_text(const Fields *fields, size_t number, bool must_be_utf8, Column *column) {
    FillResult result = fill_variable(fields, number, copy_text, column);
    return result == FILLED && must_be_utf8 && !values_are_utf8(column, fields->rows) ? OTHER_TEXT : result;
}

static FillResult fill(const Fields *fields, size_t number, ColumnKind kind, Column *column);

/* Cut an array of one dimension, as array_out prints it (src/backend/utils/adt/arrayfuncs.c of PostgreSQL). An item stands
 * in quotes exactly where it needs them. Escaped quotes become doubled ones, as they stand in CSV; NULL becomes a field
 * without anything. False: it is no such array, or a backslash stands in an item. */
static bool cut_array(unsigned char *text, size_t at, size_t end, bool with_quotes, Fields *items) {
    if (at == end || text[at++] != '{' || text[--end] != '}' || at > end) return false;
    for (bool is_last = at == end; !is_last; at++) {
        size_t start = at += text[at] == '"';
        bool is_quoted = text[at - 1] == '"', needs_quotes = false;
        for (; at < end && text[at] != (is_quoted ? '"' : ','); at++) {
            if (text[at] == '\\' && text[at + 1] != '"') return false;
            if (text[at] == '\\') text[at++] = '"';
            needs_quotes |= memchr("{},\" \t\n\v\f\r", text[at], 10) != NULL;
        }
        size_t size = at - start;
        bool is_word = size == 4 && strncasecmp((const char *)text + start, "NULL", size) == 0;
        bool is_nothing = is_word && !is_quoted && memcmp(text + start, "NULL", size) == 0;
        if (!is_nothing && is_quoted != (needs_quotes || is_word || !size)) return false;
        if (!size && !with_quotes) return false; /* an empty text, of what is none */
        if ((is_quoted && at++ >= end) || (at < end && text[at] != ',')) return false;
        uint32_t *bounds = items->bounds + 2 * items->rows++;
        bounds[0] = (uint32_t)(start - (is_quoted && with_quotes));
        bounds[1] = (uint32_t)(is_nothing ? start : start + size + (is_quoted && with_quotes)) + items->separator;
        is_last = at == end;
    }
    return true;
}

/* Lists of what the precision says, a letter: their text is cut into items, and these become a column of their own. */
static FillResult fill_list(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    FillResult result = fill_text(fields, number, false, column);
    if (result != FILLED) return result;
    Bytes text = column->buffers[VALUES];
    int32_t *offsets = (int32_t *)(void *)column->buffers[OFFSETS].data;
    Fields items = {.text = text.data, .columns = 1, .stride = 2, .separator = 1, .has_quotes = true};
    items.bounds = malloc((text.size + 2) * sizeof *items.bounds); /* two for an item, which takes two bytes */
    if (!items.bounds || !(column->items = calloc(1, sizeof *column->items))) result = NO_ROOM;
    for (size_t row = 0, start = 0, end; result == FILLED && row < fields->rows; row++, start = end) {
        end = (size_t)offsets[row + 1];
        if (!is_null(fields, field_at(fields, row, number)) &&
            !cut_array(text.data, start, end, kind.precision == 't', &items))
            result = OTHER_TEXT;
        offsets[row + 1] = (int32_t)items.rows;
    }
    if (result == FILLED) result = fill(&items, 0, (ColumnKind){.letter = kind.precision}, column->items);
    free(items.bounds);
    free(text.data);
    column->buffers[VALUES] = (Bytes){0};
    return result;
}

bool is_known(ColumnKind kind) {
    if (kind.letter == 'L') return kind.precision && strchr("bhilofDTSZt", kind.precision);
    if (kind.letter == 'd') return kind.precision && kind.precision <= 38 && kind.scale <= kind.precision;
    if (strchr("KY", kind.letter)) return kind.letter && kind.scale <= 6;
    return strchr("bcBhHiolfDTSZUXtr", kind.letter);
}

static FillResult fill(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    switch (kind.letter) {
        case 'b': return fill_fixed(fields, number, 'b', kind, 1, column);
        case 'c': return fill_fixed(fields, number, 'c', kind, 8, column);
        case 'B': return fill_fixed(fields, number, 'B', kind, 8, column);
        case 'h': return fill_fixed(fields, number, 'h', kind, 16, column);
        case 'H': return fill_fixed(fields, number, 'H', kind, 16, column);
        case 'i': return fill_fixed(fields, number, 'i', kind, 32, column);
        case 'o': return fill_fixed(fields, number, 'o', kind, 32, column);
        case 'l': return fill_fixed(fields, number, 'l', kind, 64, column);
        case 'f': return fill_fixed(fields, number, 'f', kind, 64, column);
        case 'd': return fill_fixed(fields, number, 'd', kind, 128, column);
        case 'D': return fill_fixed(fields, number, 'D', kind, 32, column);
        case 'T': return fill_fixed(fields, number, 'T', kind, 64, column);
        case 'K': return fill_fixed(fields, number, 'K', kind, 64, column);
        case 'S': return fill_fixed(fields, number, 'S', kind, 64, column);
        case 'Y': return fill_fixed(fields, number, 'Y', kind, 64, column);
        case 'Z': return fill_fixed(fields, number, 'Z', kind, 64, column);
        case 'U': return fill_fixed(fields, number, 'U', kind, 128, column);
        case 'X': return fill_variable(fields, number, copy_hex, column);
        case 'L': return fill_list(fields, number, kind, column);
        case 't': return fill_text(fields, number, true, column);
        default: return fill_text(fields, number, false, column);
    }
}

bool fill_column(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    *column = (Column){0};
    FillResult result = fill(fields, number, kind, column);
    if (result == OTHER_TEXT) {
        release_column(column);
        result = fill_text(fields, number, false, column);
        column->is_raw = true;
    }
    return result == FILLED;
}
