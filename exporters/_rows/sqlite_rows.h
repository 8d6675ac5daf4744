/* The rows of a statement of SQLite, written as their canonical texts (docs/FORMAT.md, "Digest"). */
#pragma once

#include "lines.h"

/* A prepared statement, and functions of the library that has prepared it (https://sqlite.org/c3ref/column_blob.html).
 * Python hands over the first seven; what the rows are written to belongs to whoever calls. */
typedef struct {
    void *statement;
    int (*step)(void *statement);
    int (*column_type)(void *statement, int column);
    int64_t (*column_int64)(void *statement, int column);
    double (*column_double)(void *statement, int column);
    const unsigned char *(*column_blob)(void *statement, int column);
    int (*column_bytes)(void *statement, int column);
    unsigned char *text;
    size_t size;
    size_t capacity;
    bool is_done; /* there are no more rows */
} Statement;

/* Fetch up to most_rows rows, fewer where they are large. REFUSED: SQLite says an error, or a row is too large. Whoever
 * calls frees fields->bounds and the text of the statement. */
Result fetch_rows(void *statement, size_t most_rows, size_t columns, Fields *fields);
