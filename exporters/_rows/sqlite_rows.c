#include "sqlite_rows.h"

#include <stdlib.h>
#include <string.h>

#include "values.h"
#include "xxh3.h"

enum { ROW = 100, DONE = 101 }; /* https://sqlite.org/rescode.html */
enum { INTEGER = 1, REAL = 2, TEXT = 3, BLOB = 4, NOTHING = 5 }; /* https://sqlite.org/c3ref/c_blob.html */
enum { BLOCK_BYTES = 1 << 23, MOST_NUMBER_BYTES = 24 };

static unsigned char *put_number(unsigned char *to, int64_t number) {
    unsigned char digits[MOST_NUMBER_BYTES], *end = digits + sizeof digits, *first = end;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do *--first = (unsigned char)('0' + left % 10);
    while (left /= 10);
    if (number < 0) *--first = '-';
    memcpy(to, first, (size_t)(end - first));
    return to + (end - first);
}

/* Write the text of a value, and a comma. False: there is no room for it, or SQLite could not make it. */
static bool put_value(Statement *of, int column) {
    int class = of->column_type(of->statement, column);
    bool has_bytes = class == TEXT || class == BLOB;
    const unsigned char *data = has_bytes ? of->column_blob(of->statement, column) : NULL;
    size_t size = has_bytes ? (size_t)of->column_bytes(of->statement, column) : 0;
    size_t needed = of->size + size + MOST_NUMBER_BYTES;
    if ((size && !data) || needed > MOST_BLOCK_BYTES) return false;
    if (needed > of->capacity) {
        unsigned char *larger = realloc(of->text, 2 * needed + BLOCK_BYTES / 8);
        if (!larger) return false;
        of->text = larger;
        of->capacity = 2 * needed + BLOCK_BYTES / 8;
    }
    unsigned char *to = of->text + of->size;
    int64_t number = class == INTEGER ? of->column_int64(of->statement, column) : (int64_t)size;
    if (class == REAL) {
        double value = of->column_double(of->statement, column);
        memcpy(&number, &value, sizeof number);
        *to++ = 'r';
    }
    if (has_bytes) *to++ = class == BLOB ? 'b' : is_utf8(data, size) ? 't' : 'x';
    if (class != NOTHING) to = put_number(to, number);
    if (has_bytes) *to++ = ':';
    if (size) memcpy(to, data, size);
    to[size] = ',';
    of->size = (size_t)(to - of->text) + size + 1;
    return true;
}

Result fetch_rows(void *statement, size_t most_rows, size_t columns, Fields *fields) {
    Statement *of = statement;
    int code = ROW;
    *fields = (Fields){.columns = columns, .stride = 1, .separator = 1};
    if (most_rows > MOST_BLOCK_BYTES / columns) return REFUSED;
    if (!(fields->bounds = malloc((most_rows * columns + 1) * sizeof *fields->bounds))) return NO_MEMORY;
    uint32_t *bounds = fields->bounds;
    while (fields->rows < most_rows && of->size < BLOCK_BYTES && (code = of->step(of->statement)) == ROW) {
        size_t start = of->size;
        for (size_t column = 0; column < columns; column++) {
            *bounds++ = (uint32_t)of->size;
            if (!put_value(of, (int)column)) return REFUSED;
        }
        fields->digest += xxh3_128(of->text + start, of->size - 1 - start);
        fields->rows++;
    }
    *bounds = (uint32_t)of->size;
    fields->text = of->text;
    of->is_done = code == DONE;
    return code == ROW || code == DONE ? TAKEN : REFUSED;
}
