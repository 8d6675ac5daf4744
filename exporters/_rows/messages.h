/* What a PostgreSQL server sends (PostgreSQL documentation, "Message Formats" and "Logical Replication Message Formats"):
 * the rows of a COPY, and the values in a row of the plugin pgoutput ("TupleData"). */
#pragma once

#include "lines.h"

/* Find the whole rows that begin a text, one after the other, up to one of more than most_bytes or another message: the
 * bytes of all. Returns the bytes that their messages take. */
size_t rows_at(const unsigned char *text, size_t size, size_t most_bytes, size_t *row_bytes);

/* Copy the rows in so many bytes of messages, without their heads. */
void copy_rows(const unsigned char *text, size_t message_bytes, unsigned char *to);

typedef enum { CUT_OFF, TEXT_VALUE = 't', NULL_VALUE = 'n', UNCHANGED_VALUE = 'u' } ValueKind;

/* Read the value that begins at *at, and move *at to the next. CUT_OFF: it is not whole, or of no known kind. */
ValueKind value_at(const unsigned char *message, size_t size, size_t *at, Field *value);
