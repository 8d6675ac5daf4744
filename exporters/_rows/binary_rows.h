/* Rows of Arrow columns as COPY takes them (PostgreSQL documentation, COPY, "Binary Format"). */
#pragma once

#include "columns.h"

/* A column whose first row is number offset of its buffers. Letters: b bool; h i l numbers of 16, 32 and 64 bits, from
 * which the parameter is subtracted; d decimal, U 16 bytes, t text, j text behind the number of jsonb's format. Of
 * decimals the parameter says how many digits stand behind the point. */
typedef struct {
    unsigned char letter;
    int64_t parameter;
    size_t offset;
    Field buffers[BUFFERS];
    unsigned digits; /* of 10,000, of each decimal */
} ArrowColumn;

/* Write all rows. REFUSED: a letter is unknown, or a buffer has not what so many rows need. Whoever calls frees
 * rows->data. */
Result write_rows(ArrowColumn *columns, size_t count, size_t row_count, Bytes *rows);
