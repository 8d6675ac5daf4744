#include "columns.h"

#include <stdlib.h>
#include <strings.h>

#include "sixteen.h"
#include "values.h"

enum { UUID_BYTES = 16 };

static const ColumnKind BYTES_KIND = {.letter = 'r'};

static Result fill(const Fields *fields, size_t number, ColumnKind kind, Column *column);

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

static inline void set_null(Column *column, size_t row) {
    column->buffers[VALIDITY].data[row / 8] &= (unsigned char)~(1u << row % 8);
    column->nulls++;
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

/* A double as SQLite's rows have it: an r, and its bits as a number. */
static inline bool read_bits(Field field, int64_t *bits) {
    Field digits = {field.text + 1, field.size - 1};
    return field.size && field.text[0] == 'r' && read_integer(digits, INT64_MIN, INT64_MAX, bits);
}

static inline bool is_small_decimal(ColumnKind kind) {
    return kind.letter == 'd' && kind.precision <= MOST_SMALL_DIGITS;
}

static inline bool read_scaled(Field field, ColumnKind kind, size_t row, unsigned char *values) {
    __int128 number;
    if (!read_decimal(field, kind.precision, kind.scale, &number)) return false;
    if (is_small_decimal(kind)) memcpy(values + row * sizeof(int64_t), &number, sizeof(int64_t));
    else memcpy(values + row * sizeof number, &number, sizeof number);
    return true;
}

/* The letters of values that take as many bits each; small decimals take half as many. */
static const char fixed_letters[] = "bcBhHiolfRDTSZUd";
static const unsigned char bits_of_fixed[] = {1, 8, 8, 16, 16, 32, 32, 64, 64, 64, 32, 64, 64, 64, 128, 128};

/* Read the value of a row into its place among those of a column, which is aligned as its C type is. */
static inline bool read_value(Field field, ColumnKind kind, size_t row, unsigned char *values) {
    int64_t *numbers = (int64_t *)(void *)values;
    switch (kind.letter) {
        case 'b': return read_bool(field, row % 8, values + row / 8);
        case 'c': return read_number(field, INT8_MIN, INT8_MAX, 1, values + row);
        case 'B': return read_number(field, 0, UINT8_MAX, 1, values + row);
        case 'h': return read_number(field, INT16_MIN, INT16_MAX, 2, values + row * 2);
        case 'H': return read_number(field, 0, UINT16_MAX, 2, values + row * 2);
        case 'i': return read_number(field, INT32_MIN, INT32_MAX, 4, values + row * 4);
        case 'o': return read_number(field, 0, UINT32_MAX, 4, values + row * 4);
        case 'l': return read_integer(field, INT64_MIN, INT64_MAX, numbers + row);
        case 'f': return read_double(field, (double *)(void *)values + row);
        case 'R': return read_bits(field, numbers + row);
        case 'd': return read_scaled(field, kind, row, values);
        case 'D': return read_date(field, (int32_t *)(void *)values + row);
        case 'T': return read_time(field, kind.scale, numbers + row);
        case 'S': return read_timestamp(field, kind.scale, false, numbers + row);
        case 'Z': return read_timestamp(field, kind.scale, true, numbers + row);
        default: return read_uuid(field, values + row * UUID_BYTES);
    }
}

static Result fill_fixed(const Fields *fields, size_t number, ColumnKind kind, size_t value_bits, Column *column) {
    if (!allocate(&column->buffers[VALUES], (fields->rows * value_bits + 7) / 8)) return NO_MEMORY;
    unsigned char *values = column->buffers[VALUES].data;
    for (size_t row = 0; row < fields->rows; row++) {
        Field field = field_at(fields, row, number);
        if (is_null(fields, field)) set_null(column, row);
        else if (!read_value(field, kind, row, values)) return REFUSED;
    }
    return TAKEN;
}

/* Text without its quotes. */
static inline unsigned char *copy_unquoted(Field field, unsigned char *to) {
    const unsigned char *from = field.text + 1, *end = field.text + field.size - 1;
    while (end - from >= (ptrdiff_t)sizeof(Sixteen)) {
        Sixteen bytes = sixteen_at(from);
        unsigned quotes = highest_bits(equal(bytes, '"'));
        memcpy(to, &bytes, sizeof bytes);
        size_t size = quotes ? (size_t)__builtin_ctz(quotes) + 1 : sizeof bytes;
        to += size;
        from += size + (quotes != 0); /* the second of two quotes */
    }
    for (; from < end; *to++ = *from++) from += *from == '"';
    return to;
}

/* What SQLite has as text or blob: its class, the number of its bytes, a colon, the bytes. */
static inline unsigned char *copy_sized(Field field, unsigned char class, unsigned char *to) {
    const unsigned char *colon = memchr(field.text, ':', field.size);
    if (!colon || field.text[0] != class) return NULL;
    size_t size = (size_t)(field.text + field.size - colon - 1);
    return (unsigned char *)memcpy(to, colon + 1, size) + size;
}

/* Copy the bytes of a value; return the end of the copy, NULL where it is none of the kind. */
static inline unsigned char *copy_value(Field field, ColumnKind kind, bool has_quotes, unsigned char *to) {
    if (kind.letter == 'X') return read_hex(field, to) ? to + (field.size - 2) / 2 : NULL;
    if (kind.letter == 's') return copy_sized(field, kind.precision, to);
    if (has_quotes && field.text[0] == '"') return copy_unquoted(field, to);
    return (unsigned char *)memcpy(to, field.text, field.size) + field.size;
}

static Result fill_variable(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    size_t most_bytes = 0;
    for (size_t row = 0; row < fields->rows; row++) most_bytes += field_at(fields, row, number).size;
    if (!allocate(&column->buffers[OFFSETS], (fields->rows + 1) * sizeof(int32_t))) return NO_MEMORY;
    if (!allocate(&column->buffers[VALUES], most_bytes)) return NO_MEMORY;
    int32_t *offsets = (int32_t *)(void *)column->buffers[OFFSETS].data;
    unsigned char *values = column->buffers[VALUES].data, *to = values;
    bool begins_within = false; /* a character, as no value of UTF-8 does */
    for (size_t row = 0; row < fields->rows; row++) {
        Field field = field_at(fields, row, number);
        if (is_null(fields, field)) set_null(column, row);
        else if (!(to = copy_value(field, kind, fields->has_quotes, to))) return REFUSED;
        offsets[row + 1] = (int32_t)(to - values);
        begins_within |= offsets[row + 1] > offsets[row] && (values[offsets[row]] & 0xC0) == 0x80;
    }
    size_t size = column->buffers[VALUES].size = (size_t)(to - values);
    return kind.letter == 't' && (begins_within || !is_utf8(values, size)) ? REFUSED : TAKEN;
}

/* Cut an array of one dimension, as array_out prints it (src/backend/utils/adt/arrayfuncs.c of PostgreSQL). An item stands
 * in quotes exactly where it needs them. Escaped quotes become doubled ones, as they stand in CSV; NULL becomes a field
 * without anything. False: it is no such array, or a backslash stands in an item. */
static bool cut_array(unsigned char *text, size_t at, size_t end, bool with_quotes, Fields *items) {
    static const bool is_special[256] = {['{'] = 1, ['}'] = 1, [','] = 1, ['"'] = 1, [' '] = 1,
                                         ['\t'] = 1, ['\n'] = 1, ['\v'] = 1, ['\f'] = 1, ['\r'] = 1};
    if (at == end || text[at++] != '{' || text[--end] != '}' || at > end) return false;
    for (bool is_last = at == end; !is_last; at++) {
        size_t start = at += text[at] == '"';
        bool is_quoted = text[at - 1] == '"', needs_quotes = false;
        for (; at < end && text[at] != (is_quoted ? '"' : ','); at++) {
            if (text[at] == '\\' && text[at + 1] != '"') return false;
            if (text[at] == '\\') text[at++] = '"';
            needs_quotes |= is_special[text[at]];
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
static Result fill_list(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    Result result = fill_variable(fields, number, BYTES_KIND, column);
    if (result != TAKEN) return result;
    Bytes text = column->buffers[VALUES];
    int32_t *offsets = (int32_t *)(void *)column->buffers[OFFSETS].data;
    Fields items = {.text = text.data, .columns = 1, .stride = 2, .separator = 1, .has_quotes = true};
    items.bounds = malloc((text.size + 2) * sizeof *items.bounds); /* two for an item, which takes two bytes */
    if (!items.bounds || !(column->items = calloc(1, sizeof *column->items))) result = NO_MEMORY;
    for (size_t row = 0, start = 0, end; result == TAKEN && row < fields->rows; row++, start = end) {
        end = (size_t)offsets[row + 1];
        if (!is_null(fields, field_at(fields, row, number)) &&
            !cut_array(text.data, start, end, kind.precision == 't', &items))
            result = REFUSED;
        offsets[row + 1] = (int32_t)items.rows;
    }
    if (result == TAKEN) result = fill(&items, 0, (ColumnKind){.letter = kind.precision, .scale = kind.scale}, column->items);
    free(items.bounds);
    return result;
}

bool is_known(ColumnKind kind) {
    if (!kind.letter) return false;
    if (kind.letter == 'L') return kind.precision && strchr("bhilofDTSZt", kind.precision);
    if (kind.letter == 'd') return kind.precision && kind.precision <= 38 && kind.scale <= kind.precision;
    if (strchr("TSZ", kind.letter)) return kind.scale <= 6 || kind.scale == ANY_DIGITS;
    if (kind.letter == 's') return kind.precision == 't' || kind.precision == 'b';
    return strchr(fixed_letters, kind.letter) || strchr("Xtr", kind.letter);
}

static Result fill(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    const char *letter = strchr(fixed_letters, kind.letter);
    Bytes *validity = &column->buffers[VALIDITY];
    if (!allocate(validity, (fields->rows + 7) / 8)) return NO_MEMORY;
    memset(validity->data, 0xFF, validity->size);
    if (!letter) return (kind.letter == 'L' ? fill_list : fill_variable)(fields, number, kind, column);
    size_t value_bits = (size_t)bits_of_fixed[letter - fixed_letters] >> is_small_decimal(kind);
    return fill_fixed(fields, number, kind, value_bits, column);
}

Result fill_column(const Fields *fields, size_t number, ColumnKind kind, Column *column) {
    Result result = fill(fields, number, kind, column);
    if (result != REFUSED) return result;
    release_column(column);
    column->is_raw = true;
    return fill(fields, number, BYTES_KIND, column);
}
