/* What a PostgreSQL server sends (PostgreSQL documentation, "Message Formats" and "Logical Replication Message Formats"):
 * the rows of a COPY, and the values in a row of the plugin pgoutput ("TupleData"). */
#pragma once

#include "lines.h"

/* Write the rows that begin a text, without the heads of their messages: up to one that has not arrived or has more than
 * most_bytes, or another message. Lines of COPY's text format become lines of CSV, of up to three bytes for each of theirs.
 * The end moves behind them. Returns the bytes that their messages take. */
size_t take_rows(const unsigned char *text, size_t size, size_t most_bytes, bool are_text, unsigned char **end);

typedef enum { CUT_OFF, TEXT_VALUE = 't', NULL_VALUE = 'n', UNCHANGED_VALUE = 'u' } ValueKind;

/* Read the value that begins at *at, and move *at to the next. CUT_OFF: it is not whole, or of no known kind. */
ValueKind value_at(const unsigned char *message, size_t size, size_t *at, Field *value);
