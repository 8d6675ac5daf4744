/* One column of a block as the buffers of an Arrow array (Arrow Columnar Format, "Physical Memory Layout"). */
#pragma once

#include "lines.h"

/* How a column is typed. Python gives three bytes for each. */
typedef struct {
    unsigned char letter;
    unsigned char precision;
    unsigned char scale;
} ColumnKind;

/* Whether a letter is one of: b bool, c h i l integers of 8, 16, 32 and 64 bits, B H o of 8, 16 and 32 without sign, f
 * double, R double of SQLite, d decimal, of 64 bits up to MOST_SMALL_DIGITS, else of 128, D date, T time, S timestamp, Z
 * timestamp with time zone, each with as many digits of a second as the scale says or ANY_DIGITS, U uuid, X bytes in
 * hexadecimal, t text in UTF-8, r bytes as they are, s bytes of SQLite's class that stands as precision (t or b), L lists
 * of the letter that stands as precision (one of bhilofDTSZt); and whether its precision and scale are those of a decimal. */
bool is_known(ColumnKind kind);

typedef struct {
    unsigned char *data;
    size_t size;
} Bytes;

enum { VALIDITY, OFFSETS, VALUES, BUFFERS };

typedef struct Column {
    Bytes buffers[BUFFERS]; /* without data where the type has no such buffer */
    struct Column *items;   /* of lists, instead of values */
    size_t nulls;
    bool is_raw; /* some value is none of the kind: the column has the text of all of them, as bytes */
} Column;

/* Make a column of a block, which is empty before. Whoever calls releases it, in any case. */
Result fill_column(const Fields *fields, size_t number, ColumnKind kind, Column *column);

/* Free the buffers of a column, and leave it empty. */
void release_column(Column *column);
