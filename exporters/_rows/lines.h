/* A block of CSV lines, cut into fields. */
#ifndef MOVEOUT_LINES_H
#define MOVEOUT_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where fields begin, row after row: field c of row r is text[starts[i]] .. text[starts[i + 1] - 2] with
 * i = r * columns + c, because one separator stands between a field and the next. */
typedef struct {
    const unsigned char *text;
    size_t size;
    size_t columns;
    size_t rows;
    uint32_t *starts;
    bool has_quotes;
} Fields;

typedef struct {
    const unsigned char *text;
    size_t size;
} Field;

typedef enum { CUT, NOT_CUT, NO_MEMORY } CutResult;

/* The most bytes of a block: offsets of Arrow's text have 31 bits. */
#define MOST_BLOCK_BYTES ((size_t)INT32_MAX - 64)

/* Cut a block of whole lines of so many columns. NOT_CUT: it is not exactly what the server prints for rows of these
 * columns. Whoever calls frees fields->starts. */
CutResult cut_fields(const unsigned char *text, size_t size, size_t columns, Fields *fields);

/* Add up the XXH3-128 of each line of a block, modulo 2^128. Only quotes are looked at, not fields. False: the block
 * does not end at a line's end. */
bool digest_lines(const unsigned char *text, size_t size, size_t *rows, unsigned __int128 *digest);

static inline Field field_at(const Fields *fields, size_t row, size_t column) {
    const uint32_t *start = fields->starts + row * fields->columns + column;
    return (Field){fields->text + start[0], start[1] - start[0] - 1};
}

/* The text of a row, without the newline at its end. */
static inline Field row_at(const Fields *fields, size_t row) {
    const uint32_t *start = fields->starts + row * fields->columns;
    return (Field){fields->text + start[0], start[fields->columns] - start[0] - 1};
}

#endif
