/* A row in a message of logical decoding's plugin pgoutput (PostgreSQL documentation, "Logical Replication Message
 * Formats", TupleData). */
#ifndef MOVEOUT_PGOUTPUT_H
#define MOVEOUT_PGOUTPUT_H

#include <stdbool.h>
#include <stddef.h>

enum { COUNT_BYTES = 2, TEXT_VALUE = 't', NULL_VALUE = 'n', UNCHANGED_VALUE = 'u' };

typedef struct {
    const unsigned char *text;
    size_t size;
    unsigned char kind;
} RowValue;

/* Read the number of values of the row that begins at *at, and move *at to the first. False: the message is cut off. */
bool row_at(const unsigned char *message, size_t size, size_t *at, size_t *count);

/* Read the value that begins at *at, and move *at to the next. False: it is cut off, or of no known kind. */
bool value_at(const unsigned char *message, size_t size, size_t *at, RowValue *value);

#endif
