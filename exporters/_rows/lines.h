/* A block of rows, cut into fields; and how that is done with CSV lines. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where fields begin and end, row after row. Field c of row r is text[bounds[i]] .. text[bounds[i + 1] - separator - 1]
 * with i = (r * columns + c) * stride. Of CSV lines only where fields begin is kept (a stride of 1): one separator stands
 * between a field and the next. */
typedef struct {
    const unsigned char *text;
    size_t columns;
    size_t rows;
    uint32_t *bounds;
    size_t stride;
    uint32_t separator;
    bool has_quotes;          /* a field may stand in quotes */
    unsigned __int128 digest; /* of all rows: the XXH3-128 of their texts, added up modulo 2^128 */
} Fields;

typedef struct {
    const unsigned char *text;
    size_t size;
} Field;

typedef enum { TAKEN, REFUSED, NO_MEMORY } Result; /* REFUSED: what is given is not of the kind that is expected */

/* The most bytes of a block: offsets of Arrow's text have 31 bits. */
#define MOST_BLOCK_BYTES ((size_t)INT32_MAX - 64)

/* Cut a block of whole lines of so many columns; without columns they are only digested. REFUSED: it is not exactly what
 * the server prints for rows of these columns. Whoever calls frees fields->bounds. */
Result cut_lines(void *block, size_t size, size_t columns, Fields *fields);

static inline Field field_at(const Fields *fields, size_t row, size_t column) {
    const uint32_t *bounds = fields->bounds + (row * fields->columns + column) * fields->stride;
    return (Field){fields->text + bounds[0], bounds[1] - bounds[0] - fields->separator};
}

enum { NULL_MARK = 0xFB };

/* Whether a field is NULL: of CSV lines one without anything, of packets one whose length is this mark. */
static inline bool is_null(const Fields *fields, Field field) {
    return !field.size && (fields->separator || field.text[-1] == NULL_MARK);
}
